// Package bridge is the program bridge of its upstream project, see package upstream. This file stands in for it where the
// sources were not taken in.
package bridge

import "github.com/skerryos/skerry/initd/cluster/upstream"

// Main is bridge's function main.
func Main() { upstream.Missing("bridge") }
