package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Defaults of what an operator leaves out.
const (
	defaultDeadline = 5 * time.Minute
	defaultInterval = 24 * time.Hour
)

// Health says when a new version works well enough to be kept.
type Health struct {
	// Deadline is how long a trial may last.
	Deadline time.Duration `yaml:"deadline" jsonschema:"description=How long a new version may take to become healthy: 1m to 1h,default=5m"`
	// Checks must pass besides those that every device has.
	Checks []HealthCheck `yaml:"checks" jsonschema:"description=What must work besides the device itself; each has a name and one of http and tcp and kubernetes and job"`
}

// A HealthCheck has exactly one kind: one of the pointers, or TCP.
type HealthCheck struct {
	// Name is a DNS label, and no other check has it.
	Name string     `yaml:"name" jsonschema:"required,description=Name of the check in messages"`
	HTTP *HTTPCheck `yaml:"http" jsonschema:"description=A URL that must answer"`
	// TCP is HOST:PORT.
	TCP        string       `yaml:"tcp" jsonschema:"description=HOST:PORT that must accept a connection,example=192.0.2.7:502"`
	Kubernetes *ObjectCheck `yaml:"kubernetes" jsonschema:"description=A Kubernetes object whose condition must be True"`
	Job        *JobCheck    `yaml:"job" jsonschema:"description=A Kubernetes Job that must complete"`
}

// An HTTPCheck asks for a URL.
type HTTPCheck struct {
	URL string `yaml:"url" jsonschema:"required,description=What to GET"`
	// Status is the answer that passes; 0 stands for each from 200 to 299.
	Status int `yaml:"status" jsonschema:"description=Status of the answer; any from 200 to 299 when left out"`
	// Contains must be in the first MiB of the answer's body.
	Contains string `yaml:"contains" jsonschema:"description=Text that the answer must contain"`
	// CA are certificates in PEM that take the place of the system's.
	CA string `yaml:"ca" jsonschema:"description=Certificate authorities (PEM) to trust in place of the system's"`
	// Insecure: the server's certificate is not looked at.
	Insecure bool `yaml:"insecure" jsonschema:"description=Accept any certificate"`
}

// An ObjectCheck looks at a condition of a Kubernetes object.
type ObjectCheck struct {
	// Resource is PLURAL or PLURAL.GROUP.
	Resource string `yaml:"resource" jsonschema:"required,description=Plural and group of the kind,example=deployments.apps"`
	// Namespace is empty for objects that are in none, such as nodes.
	Namespace string `yaml:"namespace" jsonschema:"description=Namespace of the object; left out for kinds that are in none"`
	Name      string `yaml:"name" jsonschema:"required,description=Name of the object"`
	Condition string `yaml:"condition" jsonschema:"required,description=Type of the condition that must be True,example=Available"`
}

// A JobCheck waits for a Job.
type JobCheck struct {
	// Namespace is empty for "default".
	Namespace string `yaml:"namespace" jsonschema:"description=Namespace of the Job,default=default"`
	Name      string `yaml:"name" jsonschema:"required,description=Name of the Job"`
}

// Update says where upgrades come from by themselves. By default there are none.
type Update struct {
	// URL is where a bundle lies; {board}, {architecture} and {version} stand for the device's.
	URL string `yaml:"url" jsonschema:"description=Where a bundle lies; {board} and {architecture} and {version} stand for those of the device,example=https://updates.example.com/{board}.skb"`
	// Interval is how often it is asked for.
	Interval time.Duration `yaml:"interval" jsonschema:"description=How often to ask: at least 5m,default=24h"`
	// Window is when it may be asked for and applied; nil stands for any time.
	Window *Window `yaml:"window" jsonschema:"description=Time of day in which upgrades may be fetched and applied"`
	// Rate is in bytes per second; 0 stands for as fast as it goes.
	Rate Bytes `yaml:"rate" jsonschema:"description=Bytes per second of a transfer; unlimited when left out,example=2MiB"`
	// USB: a removable disk with a bundle on it upgrades the device.
	USB bool `yaml:"usb" jsonschema:"description=A removable disk with a bundle on it upgrades the device,default=false"`
}

// BundleURL is URL for a device.
func (u *Update) BundleURL(board, architecture, version string) string {
	return strings.NewReplacer(PlaceBoard, url.QueryEscape(board), PlaceArchitecture, url.QueryEscape(architecture),
		PlaceVersion, url.QueryEscape(version)).Replace(u.URL)
}

func (c *HealthCheck) key() string { return c.Name }

func (c *HealthCheck) incomplete() error {
	kinds := 0
	for _, given := range []bool{c.HTTP != nil, c.TCP != "", c.Kubernetes != nil, c.Job != nil} {
		if given {
			kinds++
		}
	}
	switch {
	case c.Name == "":
		return errors.New(`"name" is missing: what messages call this check`)
	case kinds != 1:
		return errors.New("a check has exactly one of: http, tcp, kubernetes, job")
	}
	return nil
}

func (c *HTTPCheck) incomplete() error {
	plain := isPlainHTTP(c.URL)
	switch {
	case c.URL == "":
		return errors.New(`"url" is missing: what to ask for, such as http://127.0.0.1:30080/healthz`)
	case plain && c.CA != "":
		return errors.New(`"ca" has a meaning with https only`)
	case plain && c.Insecure:
		return errors.New(`"insecure" has a meaning with https only`)
	case c.CA != "" && c.Insecure:
		return errors.New(`"ca" and "insecure" contradict each other; remove one of them`)
	}
	return nil
}

func (c *ObjectCheck) incomplete() error {
	switch {
	case c.Resource == "":
		return errors.New(`"resource" is missing: plural and group of the kind, such as deployments.apps`)
	case c.Name == "":
		return errors.New(`"name" is missing: that of the object`)
	case c.Condition == "":
		return errors.New(`"condition" is missing: the type of the condition that must be True, such as Available`)
	}
	return nil
}

func (c *JobCheck) incomplete() error {
	if c.Name == "" {
		return errors.New(`"name" is missing: that of the Job`)
	}
	return nil
}

// checkUpgrade holds against each other what the merged keys say of upgrades.
func (c *Config) checkUpgrade(add func(path, format string, args ...any)) {
	if c.Skerry.Update.URL == "" {
		for _, key := range []string{"interval", "window", "rate"} {
			if _, given := c.At("skerry.update." + key); given {
				add("skerry.update."+key, `%q has a meaning with "url" only: add the URL of a bundle or remove it`, key)
			}
		}
	}
	if c.Skerry.Role != RoleAgent {
		return
	}
	for i, check := range c.Skerry.Health.Checks {
		if check.Kubernetes != nil || check.Job != nil {
			add(fmt.Sprintf("skerry.health.checks[%d]", i), `check %q asks the cluster, which is possible on a server only: an agent may not read its objects; use http or tcp`, check.Name)
		}
	}
}
