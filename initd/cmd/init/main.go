// Init is process 1 of a Skerry machine, in the initramfs and on the root file system, and the programs that belong to
// it: it acts by the name that it is called by.
//
//	/init, /usr/sbin/init   process 1
//	reboot, poweroff        ask process 1 for it
//	skerry-api              the device API, a service of its own
//	skerry-wifi             the radio's wpa_supplicant, as soon as there is a radio
//
// Kernel command line, written by the builder into the signed boot image:
//
//	skerry.slot=a|b          the slot that this kernel belongs to
//	skerry.roothash=HEX      root hash of the slot's verity tree
//	skerry.rootblocks=N      size of the root file system in blocks of 4096 bytes; the tree is behind it
//	skerry.version=V         version of the image
//	skerry.board=B           the board that it was built for
//	skerry.loader=uboot      the boot loader whose state decides what is booted; systemd-boot if it is missing
//	skerry.bootpart=ID       the boot partition, as U-Boot names it; the firmware's word, or the only one, if it is missing
//	skerry.loglevel=debug    show the kernel's and init's detailed messages on the console
//
// Signals that process 1 obeys: SIGINT (ctrl-alt-del) and SIGTERM restart the machine, SIGUSR2 and SIGRTMIN+4 switch it
// off, all in order: services first, file systems last. So does the power button.
//
// Files that it keeps: /run/skerry/state.json and timeline.json for the device API; /var/lib/skerry/machine for what
// outlives a boot (identity, clock, logs of crashes).
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "reboot":
		os.Exit(signalInit(syscall.SIGTERM))
	case "poweroff":
		os.Exit(signalInit(syscall.SIGUSR2))
	case "skerry-api":
		if err := apiMain(); err != nil {
			fmt.Fprintln(os.Stderr, "skerry-api:", err)
			os.Exit(1)
		}
	case "skerry-wifi":
		if err := wifiMain(); err != nil {
			fmt.Fprintln(os.Stderr, "skerry-wifi:", err)
			os.Exit(1)
		}
	default:
		if os.Getpid() != 1 {
			fmt.Fprintln(os.Stderr, "init: only the kernel starts this program; reboot and poweroff are its commands")
			os.Exit(2)
		}
		machineMain()
	}
}

func signalInit(s syscall.Signal) int {
	if err := syscall.Kill(1, s); err != nil {
		fmt.Fprintf(os.Stderr, "%s: cannot signal process 1: %v\n", filepath.Base(os.Args[0]), err)
		return 1
	}
	return 0
}
