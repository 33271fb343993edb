package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/slot"
)

// A commandLine is what the kernel was started with, as far as it concerns Skerry.
type commandLine struct {
	slot           slot.Name
	verity         machine.Verity
	version, board string
	loader         bootLoader
	// bootPartition is what the boot loader says that it has booted from; empty if it says nothing.
	bootPartition string
	debug         bool
}

// A bootLoader is one whose state this program can keep.
type bootLoader string

const (
	systemdBoot bootLoader = "systemd-boot"
	uboot       bootLoader = "uboot"
)

// unknown is the boot partition of a boot loader that cannot say it.
const unknown = "unknown"

func parseCommandLine(text string) (commandLine, error) {
	var c commandLine
	values := map[string]string{}
	for _, word := range strings.Fields(text) {
		if k, v, ok := strings.Cut(word, "="); ok && strings.HasPrefix(k, "skerry.") {
			values[k] = v
		}
	}
	c.version, c.board = values["skerry.version"], values["skerry.board"]
	c.debug = values["skerry.loglevel"] == "debug"
	c.loader = bootLoader(values["skerry.loader"])
	if c.bootPartition = values["skerry.bootpart"]; c.bootPartition == unknown {
		c.bootPartition = ""
	}
	var err error
	switch c.loader {
	case "":
		c.loader = systemdBoot
	case systemdBoot, uboot:
	default:
		return c, fmt.Errorf("kernel command line: skerry.loader=%q is neither %s nor %s", c.loader, systemdBoot, uboot)
	}
	if c.slot, err = slot.Parse(values["skerry.slot"]); err != nil {
		return c, fmt.Errorf("kernel command line: skerry.slot: %w", err)
	}
	c.verity.RootHash = values["skerry.roothash"]
	if len(c.verity.RootHash) != 64 || strings.Trim(c.verity.RootHash, "0123456789abcdef") != "" {
		return c, fmt.Errorf("kernel command line: skerry.roothash=%q is not a SHA-256 in hexadecimal", c.verity.RootHash)
	}
	if c.verity.Blocks, err = strconv.ParseUint(values["skerry.rootblocks"], 10, 48); err != nil || c.verity.Blocks == 0 {
		return c, fmt.Errorf("kernel command line: skerry.rootblocks=%q is not a number of blocks", values["skerry.rootblocks"])
	}
	return c, nil
}

func readCommandLine() (commandLine, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return commandLine{}, err
	}
	return parseCommandLine(string(text))
}
