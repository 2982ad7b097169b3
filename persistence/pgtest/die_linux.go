package pgtest

import "syscall"

// dieWithParent makes Postgres shut down at once (SIGQUIT) when the thread that starts it is gone.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
