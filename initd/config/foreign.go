package config

// foreignKeys are keys of cloud-init that have no effect on a device, with the reason that people are told; without a reason they ask
// for what is so anyway. They are what Raspberry Pi Imager writes (versions 1.8 to 2.0), and no more: whoever writes another key by hand
// shall hear that it is unknown. What was decided about each: docs/decisions/0051-imager.md.
var foreignKeys = map[string]string{
	"manage_etc_hosts":   "",
	"manage_resolv_conf": "",
	"apt":                noPackages,
	"packages":           noPackages,
	"keyboard":           "nobody logs in at the device",
	"timezone":           "the device's clock and its logs are in UTC",
	"user":               noUsers,
	"users":              noUsers,
	"chpasswd":           noUsers,
	"enable_ssh":         noUsers,
	"ssh_pwauth":         noUsers,
	"rpi":                "interfaces are switched on in config.txt on the boot partition",
	"runcmd":             "there is no shell; use a pod, or a DaemonSet",
}

const (
	noPackages = "the system is one read-only image, which has no package manager"
	noUsers    = "there are no users and no SSH; use skerry node and kubectl"
)
