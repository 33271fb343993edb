// Package service runs the device's services: it reads their unit files, starts them in the order of their dependencies,
// learns by sd_notify when they are ready and whether they are alive, starts them again after a failure, and stops them in
// reverse order.
//
// Unit files are those of systemd, in the subset that a device of this kind needs (directives, in unit.go, is the list). A
// directive that is not in it is an error and not ignored: a limit that is silently missing is found out years later. The
// daemons need no change: they speak sd_notify(3) as they do under systemd.
//
// Life cycle of a unit:
//
//	waiting → starting → ready → restarting (back-off) → starting …
//	                           → done, failed, stopped
//
// PID 1 must be the one who collects children; it passes in how processes are started (Spawner), in which group they live
// (Groups) and where their output goes. Nothing in here imports another package of the device.
package service
