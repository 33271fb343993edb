package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes, written as 512KiB, 2MiB or 1GiB.
type Bytes int64

// units are what may follow a number of bytes, the largest first.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func parseBytes(value string) (Bytes, error) {
	for _, unit := range units {
		digits, ok := strings.CutSuffix(value, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n > 1<<20 {
			break
		}
		return Bytes(int64(n) * unit.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a number of bytes: write a whole number and KiB, MiB or GiB, such as 2MiB", value)
}

func (b Bytes) String() string {
	for _, unit := range units {
		if b != 0 && int64(b)%unit.bytes == 0 {
			return strconv.FormatInt(int64(b)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + " bytes"
}

// setText gives a field its value from a text that has passed its check.
func setText(v reflect.Value, text string) error {
	switch v.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case Bytes:
		b, err := parseBytes(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(b))
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(n))
	default:
		v.SetString(text)
	}
	return nil
}

// duration makes the rule for a duration in Go's syntax within limits.
func duration(least, most time.Duration) func(string) error {
	return func(value string) error {
		d, err := time.ParseDuration(value)
		switch {
		case err != nil:
			return fmt.Errorf("%q is not a duration: write a number and its unit, such as 90s, 5m or 24h", value)
		case d < least:
			return fmt.Errorf("%s is too short: at least %s", value, short(least))
		case d > most:
			return fmt.Errorf("%s is too long: at most %s", value, short(most))
		}
		return nil
	}
}

// short writes a duration without parts that are zero.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// checkRate keeps out rates with which no bundle would ever arrive.
func checkRate(value string) error {
	b, err := parseBytes(value)
	if err == nil && b < 16<<10 {
		err = fmt.Errorf("%s bytes per second are too few: at least 16KiB", value)
	}
	return err
}

// A Window is the time of day in which something may be done. It ends before it starts when it spans midnight.
type Window struct {
	Start string `yaml:"start" jsonschema:"required,description=First minute,pattern=^[0-2][0-9]:[0-5][0-9]$,example=02:00"`
	End   string `yaml:"end" jsonschema:"required,description=First minute in which it is over,pattern=^[0-2][0-9]:[0-5][0-9]$,example=04:00"`
	Zone  string `yaml:"zone" jsonschema:"description=UTC or the distance from it such as +01:00,default=UTC,pattern=^(UTC|[+-][0-1][0-9]:[0-5][0-9])$"`
}

func (w *Window) incomplete() error {
	switch {
	case w.Start == "":
		return errors.New(`"start" is missing: the time of day at which the window opens, such as "02:00"`)
	case w.End == "":
		return errors.New(`"end" is missing: the time of day at which the window closes, such as "04:00"`)
	case w.Start == w.End:
		return fmt.Errorf("the window starts and ends at %s: it is never open; leave it out for upgrades at any time", w.Start)
	}
	return nil
}

// Bounds are start and end as the time since midnight, and where that midnight is. The window must be one that was read without
// mistakes.
func (w *Window) Bounds() (start, end time.Duration, zone *time.Location) {
	start, _ = timeOfDay(w.Start)
	end, _ = timeOfDay(w.End)
	zone, _ = zoneOf(w.Zone)
	return start, end, zone
}

func timeOfDay(value string) (time.Duration, error) {
	t, err := time.Parse("15:04", value)
	if err != nil || len(value) != len("15:04") {
		return 0, fmt.Errorf("%q is not a time of day: write it from \"00:00\" to \"23:59\"", value)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// zoneOf knows no names of zones: their table is large, changes by law, and is not on the device.
func zoneOf(value string) (*time.Location, error) {
	if value == "" || value == "UTC" {
		return time.UTC, nil
	}
	bad := fmt.Errorf("zone %q is not known on devices: write UTC or the distance from it, such as +01:00", value)
	if value[0] != '+' && value[0] != '-' {
		return nil, bad
	}
	d, err := timeOfDay(value[1:])
	if err != nil || d > 14*time.Hour {
		return nil, bad
	}
	if value[0] == '-' {
		d = -d
	}
	return time.FixedZone(value, int(d/time.Second)), nil
}
