package service

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// startsAfter lists the units that must have started before u does.
func (u *Unit) startsAfter() []string { return union(u.After, u.Requires) }

// stopsBefore lists the units that stop after u has.
func (u *Unit) stopsBefore() []string { return union(u.After, u.Requires, u.Wants) }

func union(lists ...[]string) []string {
	names := slices.Concat(lists...)
	slices.Sort(names)
	return slices.Compact(names)
}

// checkGraph makes sure that every unit that is named exists and that none waits for itself.
func checkGraph(units []*Unit) error {
	byName := map[string]*Unit{}
	var mistakes []error
	for _, u := range units {
		if other, again := byName[u.Name]; again {
			mistakes = append(mistakes, fmt.Errorf("%s: there is already a unit of this name: %s", u.Path, other.Path))
		}
		byName[u.Name] = u
	}
	for _, u := range units {
		for _, list := range []struct {
			directive string
			names     []string
		}{{"After", u.After}, {"Requires", u.Requires}, {"Wants", u.Wants}} {
			for _, name := range list.names {
				if byName[name] == nil {
					mistakes = append(mistakes, fmt.Errorf("%s:%d: %s= names %s.service, which does not exist", u.Path, u.lines[list.directive], list.directive, name))
				}
			}
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return err
	}
	done := map[string]bool{}
	for _, u := range units {
		if cycle := findCycle(byName, done, u.Name, nil); cycle != nil {
			return fmt.Errorf("%s: units wait for each other: %s", byName[cycle[0]].Path, strings.Join(cycle, " → "))
		}
	}
	return nil
}

// findCycle walks depth first; path is the way from the start to name.
func findCycle(units map[string]*Unit, done map[string]bool, name string, path []string) []string {
	if i := slices.Index(path, name); i >= 0 {
		return append(path[i:], name)
	}
	if done[name] {
		return nil
	}
	path = append(path, name)
	for _, dependency := range units[name].stopsBefore() {
		if cycle := findCycle(units, done, dependency, path); cycle != nil {
			return cycle
		}
	}
	done[name] = true
	return nil
}
