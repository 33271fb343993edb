package stick

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// An entry says that a bundle was taken from a volume.
type entry struct {
	Volume string `json:"volume"`
	Bundle string `json:"bundle"`
}

// A memory is all that was taken, the oldest first.
type memory struct {
	Taken []entry `json:"taken"`
}

// mostEntries are kept; older ones are forgotten.
const mostEntries = 64

func (m memory) has(e entry) bool { return slices.Contains(m.Taken, e) }

func (m memory) with(e entry) memory {
	taken := append(slices.Clone(m.Taken), e)
	return memory{taken[max(0, len(taken)-mostEntries):]}
}

func (m memory) without(e entry) memory {
	return memory{slices.DeleteFunc(slices.Clone(m.Taken), func(other entry) bool { return other == e })}
}

// remembered reads the memory. One that cannot be understood is as good as none: the next bundle that is taken mends it.
func (w *Watcher) remembered() (memory, error) {
	data, err := w.Memory.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return memory{}, nil
	}
	if err != nil {
		return memory{}, fmt.Errorf("cannot read what was taken from disks before: %w", err)
	}
	var m memory
	if json.Unmarshal(data, &m) != nil {
		return memory{}, nil
	}
	return m, nil
}

func (w *Watcher) remember(m memory) error {
	data, err := json.Marshal(m)
	if err == nil {
		err = w.Memory.Save(data)
	}
	if err != nil {
		return fmt.Errorf("cannot note what was taken from the disk: %w", err)
	}
	return nil
}
