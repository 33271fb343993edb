// Package portmap is the program portmap of its upstream project, see package upstream. This file stands in for it where the
// sources were not taken in.
package portmap

import "github.com/skerryos/skerry/initd/cluster/upstream"

// Main is portmap's function main.
func Main() { upstream.Missing("portmap") }
