package image

import "testing"

func TestLoaderRelease(t *testing.T) {
	const release = "ID=skerry\nNAME=Skerry\nPRETTY_NAME=\"Skerry 1.2.3 (x86-64)\"\nVERSION_ID=1.2.3\nIMAGE_ID=x86-64\nIMAGE_VERSION=1.2.3\nBUILD_ID=abc\n"
	const want = "NAME=Skerry\nPRETTY_NAME=\"Skerry 1.2.3 (x86-64)\"\nVERSION_ID=1.2.3\nIMAGE_VERSION=1.2.3\nBUILD_ID=abc\n"
	if got := string(loaderRelease([]byte(release))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
