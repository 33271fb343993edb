// Package version knows which version of Skerry a program belongs to.
package version

// Version is the version of the image that the program was built for. The builder sets it when it links
// (-X github.com/skerryos/skerry/initd/version.Version=...); a program that was built by hand says "development".
var Version = "development"
