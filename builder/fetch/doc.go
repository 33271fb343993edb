// Package fetch brings Debian packages onto the workstation and keeps them in a content-addressed cache.
//
// It is the only package of the builder that uses the network. Nothing that it returns is believed because of where it
// came from: package lists must be signed by a key of the Debian archive (folder keys), and a package must have the
// digest that the lock says, each time that it is used. A mirror can therefore be any machine, over any protocol.
//
// A [Cache] is safe for use by several goroutines and by several processes at once.
package fetch
