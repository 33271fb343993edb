// Package hostlocal is the program host-local of its upstream project, see package upstream. This file stands in for it where the
// sources were not taken in.
package hostlocal

import "github.com/skerryos/skerry/initd/cluster/upstream"

// Main is host-local's function main.
func Main() { upstream.Missing("host-local") }
