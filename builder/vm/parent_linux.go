package vm

import "syscall"

// tiedToParent makes the kernel kill the child when its parent ends in whatever way, and keeps a Ctrl-C in the terminal from
// reaching it directly.
func tiedToParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
