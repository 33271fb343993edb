// Package loopback is the program loopback of its upstream project, see package upstream. This file stands in for it where the
// sources were not taken in.
package loopback

import "github.com/skerryos/skerry/initd/cluster/upstream"

// Main is loopback's function main.
func Main() { upstream.Missing("loopback") }
