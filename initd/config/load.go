package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// A Source is one place that says something about the device.
type Source struct {
	// Name stands in front of every message, such as "/boot/user-data".
	Name string
	Data []byte
	// Err says why the source is there but could not be read.
	Err error
}

// Files are the sources that are files, the strongest first: what was put on the boot partition after flashing, then what
// was baked into the image.
var Files = []string{"/boot/user-data", "/usr/share/skerry/user-data"}

// BootFiles are the names of what configures a device on its boot partition. meta-data has nothing to say here: it tells cloud-init
// whether it has seen the others before, and they are read at every boot.
var BootFiles = []string{"user-data", "network-config", "meta-data"}

// ReadNetwork reads NetworkFile under root ("/" on the device). Without a file, or with mistakes, nothing is configured.
func ReadNetwork(root string) (*Network, error) {
	source, ok := readFile(root, NetworkFile)
	if !ok {
		return &Network{}, nil
	}
	if source.Err != nil {
		return &Network{}, Problems{{Position{Source: source.Name}, fmt.Sprintf("cannot read the file: %v", source.Err)}}
	}
	n, err := ParseNetwork(source.Name, source.Data)
	if err != nil {
		return &Network{}, err
	}
	return n, nil
}

// ReadFiles reads those of Files that exist under root ("/" on the device).
func ReadFiles(root string) []Source {
	var sources []Source
	for _, name := range Files {
		source, ok := readFile(root, name)
		if ok {
			sources = append(sources, source)
		}
	}
	return sources
}

func readFile(root, name string) (Source, bool) {
	path := filepath.Join(root, name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Source{}, false
	case err != nil:
		return Source{Name: name, Err: err}, true
	case !info.Mode().IsRegular():
		return Source{Name: name, Err: errors.New("it is not a regular file")}, true
	case info.Size() > MaxSize:
		return Source{Name: name, Err: fmt.Errorf("it has %d bytes, at most %d are read", info.Size(), MaxSize)}, true
	}
	data, err := os.ReadFile(path)
	return Source{Name: name, Data: data, Err: err}, true
}

// Validate checks a file as a device would: a network-config, which has no header and can be told by its first keys, or any other by
// itself and whether its keys go together. Ignored are keys that have no effect.
func Validate(name string, data []byte) (ignored []Problem, err error) {
	if networkKeys.Match(data) && !bytes.HasPrefix(data, []byte(header)) {
		_, err := ParseNetwork(name, data)
		return nil, err
	}
	c, err := Parse(name, data)
	if err != nil {
		return nil, err
	}
	return c.Ignored(), c.Check()
}

var networkKeys = regexp.MustCompile(`(?m)^(network|version|ethernets|wifis):`)

// Loaded is what Load found out.
type Loaded struct {
	// Config is always usable for hostname, network and time.
	Config *Config
	// Sources are the names of what it was made from, the strongest first.
	Sources []string
	// Refused are the names of the sources that were left out.
	Refused []string
	// Problems are all mistakes, for console and API. Nil without any.
	Problems Problems
}

// Load parses and merges sources, the strongest first. A source with a mistake is left out as a whole: the device still
// boots with what the others say, and Node tells why no cluster is started.
func Load(sources ...Source) *Loaded {
	l := &Loaded{}
	var good []*Config
	for _, source := range sources {
		c, err := (*Config)(nil), error(nil)
		if source.Err != nil {
			err = Problems{{Position{Source: source.Name}, fmt.Sprintf("cannot read the file: %v", source.Err)}}
		} else {
			c, err = Parse(source.Name, source.Data)
		}
		if err != nil {
			l.refuse(source.Name, err)
			continue
		}
		l.Sources = append(l.Sources, source.Name)
		good = append(good, c)
	}
	l.Config = Merge(good...)
	if err := l.Config.Check(); err != nil {
		l.refuse("", err)
	}
	return l
}

func (l *Loaded) refuse(name string, err error) {
	var problems Problems
	if errors.As(err, &problems) {
		l.Problems = append(l.Problems, problems...)
	}
	if name != "" {
		l.Refused = append(l.Refused, name)
	}
}

// Node renders the files of the Kubernetes runtime. It fails when there is any problem: the error says so to the operator.
func (l *Loaded) Node(hostname string) (*Node, error) {
	switch {
	case len(l.Refused) > 0:
		return nil, fmt.Errorf("cannot start the node: the configuration in %s has mistakes; nothing of the cluster was changed. "+
			"Correct it and reboot: network and device API are up\n%w", strings.Join(l.Refused, ", "), l.Problems)
	case len(l.Problems) > 0:
		return nil, fmt.Errorf("cannot start the node: the configuration does not fit together; nothing of the cluster was changed. "+
			"Correct it and reboot: network and device API are up\n%w", l.Problems)
	}
	return l.Config.Node(hostname)
}

// Merge puts configurations together, the strongest first: each key comes from the first that gives it. A list counts as
// one value, so that a stronger source can also shorten it; labels likewise.
func Merge(configs ...*Config) *Config {
	merged := Default()
	for _, c := range slices.Backward(configs) {
		for _, p := range c.ignored {
			if !slices.Contains(merged.ignored, p) {
				merged.ignored = append(merged.ignored, p)
			}
		}
		c.overlay(merged, reflect.ValueOf(c).Elem(), reflect.ValueOf(merged).Elem(), "")
	}
	return merged
}

// overlay copies the keys that c gives from a section of it to the same section of merged.
func (c *Config) overlay(merged *Config, from, to reflect.Value, path string) {
	for i := range from.NumField() {
		key := from.Type().Field(i).Tag.Get("yaml")
		if key == "" {
			continue
		}
		at := join(path, key)
		if _, given := c.origin[at]; !given {
			continue
		}
		if from.Field(i).Kind() == reflect.Struct {
			merged.origin[at] = c.origin[at]
			c.overlay(merged, from.Field(i), to.Field(i), at)
			continue
		}
		to.Field(i).Set(from.Field(i))
		for old := range merged.origin {
			if within(old, at) {
				delete(merged.origin, old)
			}
		}
		for place, position := range c.origin {
			if within(place, at) {
				merged.origin[place] = position
			}
		}
	}
}

// within says whether path is at or an item below it.
func within(path, at string) bool {
	rest, ok := strings.CutPrefix(path, at)
	return ok && (rest == "" || rest[0] == '[' || rest[0] == '.')
}
