package slottest

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/skerryos/skerry/initd/slot"
)

// The boot script, builder/image/uboot/boot.cmd, in Go: the same steps in the same order with the same variables. A test there
// runs both over the same machines.

// lastResort are the folders that may be complete when nothing else is known.
var lastResort = []string{"a-0", "a-1", "b-0", "b-1"}

// ReadSector is U-Boot's reading of a sector.
func (m *UBoot) ReadSector(sector uint64) ([]byte, error) {
	i := int(sector) - slot.UBootSector
	if i < 0 || i >= Copies || m.Sectors.Unreadable[i] {
		return nil, fmt.Errorf("cannot read sector %d", sector)
	}
	return m.Sectors.now[i], nil
}

// WriteSector is U-Boot's writing of a sector. It waits until the medium says that it is written. A power cut is an error that
// is also returned as cut.
func (m *UBoot) WriteSector(sector uint64, data []byte) (err, cut error) {
	if m.Sectors.WriteFails {
		return errors.New("cannot write"), nil
	}
	if cut := m.Sectors.step(); cut != nil {
		return cut, cut
	}
	i := int(sector) - slot.UBootSector
	copy(m.Sectors.now[i], data)
	m.Sectors.pending = []int{i}
	cut = m.Sectors.Sync()
	return cut, cut
}

// Boot does what the boot script does.
func (m *UBoot) Boot() ([]byte, error) {
	// 1. The valid copy with the highest number is the state; the other one is written next.
	newest, next := "none", uint64(slot.UBootSector)
	var v map[string]string
	for i := range Copies {
		sector := uint64(slot.UBootSector + i)
		data, err := m.ReadSector(sector)
		if err != nil {
			continue
		}
		values, valid := DecodeEnv(data)
		if valid && (newest == "none" || number(values["ab_seq"]) > number(v["ab_seq"])) {
			newest, v, next = strconv.Itoa(i), values, uint64(slot.UBootSector+1-i)
		}
	}
	if newest == "none" {
		v = map[string]string{"ab_cur": "a", "ab_dir_a": "none", "ab_dir_b": "none", "ab_tries_a": "0", "ab_tries_b": "0"}
	}
	// 2. The slot that was installed last, then the other one: as long as they are good or have tries left. A try is used up
	// before it is made; one that cannot be written down is not made.
	for _, n := range order(v["ab_cur"]) {
		run := v["ab_tries_"+n] == "good"
		if !run && number(v["ab_tries_"+n]) > 0 {
			add := func(key string, d int) { v[key] = strconv.FormatUint(number(v[key])+uint64(d), 16) }
			add("ab_tries_"+n, -1)
			add("ab_done_"+n, 1)
			add("ab_seq", 1)
			add("ab_count", 1)
			err, cut := m.WriteSector(next, EncodeEnv(UBootKeys, func(key string) string { return v[key] }, slot.SectorSize))
			if cut != nil {
				return nil, cut
			}
			if err == nil {
				run, next = true, 2*slot.UBootSector+1-next
			}
		}
		if run {
			if image, err := m.start(v["ab_dir_"+n]); err == nil {
				return image, nil
			}
		}
	}
	// 3. Whatever there is, without counting.
	var rest []string
	for _, n := range order(v["ab_cur"]) {
		rest = append(rest, v["ab_dir_"+n])
	}
	for _, folder := range append(rest, lastResort...) {
		if image, err := m.start(folder); err == nil {
			return image, nil
		}
	}
	return nil, errors.New("the boot script finds nothing to boot")
}

// start is what the start script of a folder does, if it is there and not damaged. It returns what it starts.
func (m *UBoot) start(folder string) ([]byte, error) {
	script, err := m.Load(folder + "/" + slot.StartScript)
	if err != nil {
		return nil, err
	}
	if string(script) != m.Start {
		return nil, errors.New("the start script is damaged")
	}
	var image []byte
	for _, name := range UBootFiles {
		part, err := m.Load(folder + "/" + name)
		if err != nil {
			return nil, err
		}
		image = append(image, part...)
	}
	return image, nil
}
