// Package machine is the boundary to the operating system: mounts, kernel modules, block devices, device mapper, watchdog,
// clock, child processes and power. It is the only package of the device that makes such system calls; all that decides
// what to do with them lives elsewhere and is tested without them.
//
// Most of it needs to be root, and some of it to be process 1.
package machine
