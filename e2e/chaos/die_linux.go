package chaos

import "syscall"

// dieWithParent makes a child process end when this one does, however that ends.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
