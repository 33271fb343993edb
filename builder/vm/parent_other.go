//go:build !linux

package vm

import "syscall"

// tiedToParent keeps a Ctrl-C in the terminal from reaching the child directly.
func tiedToParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
