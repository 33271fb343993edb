package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
)

// An Upgrade is the last upgrade, or the one that is under way.
type Upgrade struct {
	State State `json:"state"`
	// Version is the new one, From the one that ran when the upgrade began. Target is the slot of the new one.
	Version string    `json:"version,omitempty"`
	From    string    `json:"from,omitempty"`
	Target  slot.Name `json:"target,omitempty"`
	// Bundle is the SHA-256 of the bundle's header, which vouches for all of the bundle.
	Bundle string `json:"bundle,omitempty"`
	// Chunk is the first chunk that may not be on the medium, of so many Chunks.
	Chunk  int `json:"chunk,omitempty"`
	Chunks int `json:"chunks,omitempty"`
	// Boot is the size of the boot image, in bytes.
	Boot int64 `json:"boot,omitempty"`
	// Floor and Keys are what the bundle brings, and hold from the commit on.
	Floor uint64           `json:"floor,omitempty"`
	Keys  bundle.KeyChange `json:"keys,omitzero"`
	// Kept: the version was committed, and it was the boot loader that went back: nobody has given up what was made since.
	Kept bool `json:"kept,omitempty"`
	// Attempts is how often the new slot was started before it was good.
	Attempts int `json:"attempts,omitempty"`
	// Reason says why the upgrade went no further, or back.
	Reason  string    `json:"reason,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
}

// String says how far an upgrade is.
func (u Upgrade) String() string {
	switch u.State {
	case Idle, "":
		return "no upgrade is under way"
	case Writing:
		return fmt.Sprintf("upgrade to version %s in slot %s: writing, %d of %d chunks", u.Version, u.Target, u.Chunk, u.Chunks)
	case RolledBack:
		return fmt.Sprintf("upgrade to version %s in slot %s: rolled back, %s", u.Version, u.Target, u.Reason)
	default:
		return fmt.Sprintf("upgrade to version %s in slot %s: %s", u.Version, u.Target, u.State)
	}
}

// A Failure is a version that was rolled back.
type Failure struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
}

// mostFailures are kept; older ones are forgotten.
const mostFailures = 16

// A Record is what the device remembers of upgrades.
type Record struct {
	Upgrade Upgrade `json:"upgrade"`
	// Floor is the highest security floor that was committed. Bundles below it are refused, forced or not.
	Floor uint64 `json:"floor"`
	// Keys are what bundles have made of the trusted keys.
	Keys   bundle.Keys `json:"keys"`
	Failed []Failure   `json:"failed,omitempty"`
}

func (r *Record) failure(version string) (Failure, bool) {
	i := slices.IndexFunc(r.Failed, func(f Failure) bool { return f.Version == version })
	if i < 0 {
		return Failure{}, false
	}
	return r.Failed[i], true
}

func (r *Record) forgive(version string) {
	r.Failed = slices.DeleteFunc(r.Failed, func(f Failure) bool { return f.Version == version })
}

func (r *Record) condemn(f Failure) {
	r.forgive(f.Version)
	r.Failed = append(r.Failed, f)
	r.Failed = r.Failed[max(0, len(r.Failed)-mostFailures):]
}

// A Store keeps the record. Save returns when it is on the medium; a power cut leaves the old or the new one. Load returns an
// [fs.ErrNotExist] when there is none.
type Store interface {
	Load() ([]byte, error)
	Save([]byte) error
}

// A FileStore is the path of a file. Its folder must exist.
type FileStore string

// Load implements [Store].
func (f FileStore) Load() ([]byte, error) { return os.ReadFile(string(f)) }

// Save implements [Store].
func (f FileStore) Save(data []byte) error {
	if err := renameio.WriteFile(string(f), data, 0o600); err != nil { // with fsync
		return err
	}
	dir, err := os.Open(filepath.Dir(string(f)))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// load reads the record. One that cannot be understood is as good as none: the disk is damaged, and a device that nobody can
// upgrade any more is worse than one that has forgotten its floor.
func load(s Store) (*Record, error) {
	data, err := s.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return &Record{Upgrade: Upgrade{State: Idle}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the record of upgrades: %w", err)
	}
	r := &Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return &Record{Upgrade: Upgrade{State: Idle, Reason: fmt.Sprintf("the record of upgrades was damaged and is begun anew: %v", err)}}, nil
	}
	r.Upgrade.State = row(r.Upgrade.State).State
	return r, nil
}
