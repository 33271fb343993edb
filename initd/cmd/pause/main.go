// Command pause is process 1 of every pod's sandbox: it holds the pod's namespaces open and reaps the processes that a shared
// process namespace leaves to it. SIGTERM and SIGINT end it with success at once. It takes no flags and reads no files.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	hold(watch())
	os.Exit(0)
}

func watch() chan os.Signal {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	return signals
}

// hold returns when a signal asks to end. One SIGCHLD may stand for several children.
func hold(signals <-chan os.Signal) {
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for pid := 1; pid > 0; {
			pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
	}
}
