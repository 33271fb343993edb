// Package crictl is the program crictl of its upstream project, see package upstream. This file stands in for it where the
// sources were not taken in.
package crictl

import "github.com/skerryos/skerry/initd/cluster/upstream"

// Main is crictl's function main.
func Main() { upstream.Missing("crictl") }
