// Command parley is the whole of Parley: the gateway and the tools to operate it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/parley-im/parley/configs"
)

// Set by the linker (see the Makefile), which can set nothing else.
//
//nolint:gochecknoglobals // see above
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once: whoever sends it does not want to wait.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "parley:", err)
		os.Exit(exitCode(err))
	}
}

// usageError is a wrong command line: exit code 2, as is the custom.
type usageError struct{ error }

func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// cli is the command line. Its help texts are what `parley --help` shows.
type cli struct {
	Config string `help:"Configuration file (YAML); the environment, PARLEY_<KEY>, comes on top." type:"existingfile" placeholder:"FILE"`

	Serve    serveCommand       `cmd:"" help:"Run the gateway."`
	Demo     demoCommand        `cmd:"" help:"Show in a minute what Parley does, on a store that is thrown away."`
	User     userCommand        `cmd:"" help:"Manage users."`
	Service  serviceCommand     `cmd:"" help:"Manage services: the backends of an account."`
	Account  accountCommand     `cmd:"" help:"Manage accounts and their children."`
	App      applicationCommand `cmd:"" name:"application" help:"Manage the applications of an account."`
	Token    tokenCommand       `cmd:"" help:"Make an access token for a user."`
	Settings configCommand      `cmd:"" name:"config" help:"Look at the configuration."`
	Migrate  migrateCommand     `cmd:"" help:"Bring the store's schema up to date, or look at it."`
	Bench    benchCommand       `cmd:"" help:"Measure Parley on this machine."`
	Version  versionCommand     `cmd:"" help:"Print the version."`
}

// environment is what a command gets from the outside.
type environment struct {
	ctx    context.Context
	config string
	env    []string
	in     io.Reader
	out    io.Writer
	errOut io.Writer
}

// load reads the configuration.
func (e *environment) load() (configs.Config, error) {
	return configs.Load(e.config, e.env)
}

// run is the program without what a test cannot have: it ends when ctx does, and gives the error that main prints.
func run(ctx context.Context, args, env []string, in io.Reader, out, errOut io.Writer) error {
	var c cli
	exited := false
	parser, err := kong.New(&c,
		kong.Name("parley"),
		kong.Description("Parley is a messaging gateway: chat and devices over plain MQTT, in order, committed before acknowledged."),
		kong.Writers(out, errOut),
		kong.Exit(func(int) { exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.UsageOnError(),
	)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exited { // --help has printed what there is to say
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	return command.Run(&environment{ctx: ctx, config: c.Config, env: env, in: in, out: out, errOut: errOut})
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(e *environment) error {
	goVersion := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
	}
	_, err := fmt.Fprintf(e.out, "parley %s (commit %s, %s)\n", version, commit, goVersion)
	return err
}
