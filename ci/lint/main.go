// Lint runs go vet's checks and staticcheck's over packages of this repository.
//
//	lint ./...
//
// It reads the packages that it is given and nothing else from source. All that they import comes from the build cache in
// compiled form, so lint costs little where everything has been compiled, with the same flags, before; linters that
// load whole programs, and go vet itself, type-check all of Kubernetes from source.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/analysis/passes/appends"
	"golang.org/x/tools/go/analysis/passes/asmdecl"
	"golang.org/x/tools/go/analysis/passes/assign"
	"golang.org/x/tools/go/analysis/passes/atomic"
	"golang.org/x/tools/go/analysis/passes/bools"
	"golang.org/x/tools/go/analysis/passes/buildtag"
	"golang.org/x/tools/go/analysis/passes/composite"
	"golang.org/x/tools/go/analysis/passes/copylock"
	"golang.org/x/tools/go/analysis/passes/defers"
	"golang.org/x/tools/go/analysis/passes/directive"
	"golang.org/x/tools/go/analysis/passes/errorsas"
	"golang.org/x/tools/go/analysis/passes/hostport"
	"golang.org/x/tools/go/analysis/passes/httpresponse"
	"golang.org/x/tools/go/analysis/passes/ifaceassert"
	"golang.org/x/tools/go/analysis/passes/loopclosure"
	"golang.org/x/tools/go/analysis/passes/lostcancel"
	"golang.org/x/tools/go/analysis/passes/nilfunc"
	"golang.org/x/tools/go/analysis/passes/printf"
	"golang.org/x/tools/go/analysis/passes/shift"
	"golang.org/x/tools/go/analysis/passes/sigchanyzer"
	"golang.org/x/tools/go/analysis/passes/slog"
	"golang.org/x/tools/go/analysis/passes/stdmethods"
	"golang.org/x/tools/go/analysis/passes/stringintconv"
	"golang.org/x/tools/go/analysis/passes/structtag"
	"golang.org/x/tools/go/analysis/passes/testinggoroutine"
	"golang.org/x/tools/go/analysis/passes/tests"
	"golang.org/x/tools/go/analysis/passes/timeformat"
	"golang.org/x/tools/go/analysis/passes/unmarshal"
	"golang.org/x/tools/go/analysis/passes/unreachable"
	"golang.org/x/tools/go/analysis/passes/unsafeptr"
	"golang.org/x/tools/go/analysis/passes/unusedresult"
	"golang.org/x/tools/go/analysis/passes/waitgroup"
	"golang.org/x/tools/go/packages"
	"honnef.co/go/tools/analysis/lint"
	"honnef.co/go/tools/simple"
	"honnef.co/go/tools/staticcheck"
	"honnef.co/go/tools/stylecheck"
)

// vet are the checks of `go vet` (src/cmd/vet/main.go of the Go distribution), less the few for assembly with C.
var vet = []*analysis.Analyzer{
	appends.Analyzer, asmdecl.Analyzer, assign.Analyzer, atomic.Analyzer, bools.Analyzer, buildtag.Analyzer,
	composite.Analyzer, copylock.Analyzer, defers.Analyzer, directive.Analyzer, errorsas.Analyzer, hostport.Analyzer,
	httpresponse.Analyzer, ifaceassert.Analyzer, loopclosure.Analyzer, lostcancel.Analyzer, nilfunc.Analyzer,
	printf.Analyzer, shift.Analyzer, sigchanyzer.Analyzer, slog.Analyzer, stdmethods.Analyzer, stringintconv.Analyzer,
	structtag.Analyzer, testinggoroutine.Analyzer, tests.Analyzer, timeformat.Analyzer, unmarshal.Analyzer,
	unreachable.Analyzer, unsafeptr.Analyzer, unusedresult.Analyzer, waitgroup.Analyzer,
}

// left are staticcheck's checks that we do without, with the reason.
var left = map[string]string{
	"ST1000": "whether each package has a comment is a matter for its readers; main packages of tests need none",
	"ST1003": "names of other projects' formats (Kubernetes, QEMU) are kept as these write them",
	"ST1011": "settings of unit files keep systemd's names, RestartSec and the like",
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(1)
	}
}

func run(patterns []string) error {
	packages, err := load(patterns)
	if err != nil {
		return err
	}
	analyzers := slices.Clone(vet)
	for _, family := range [][]*lint.Analyzer{staticcheck.Analyzers, simple.Analyzers, stylecheck.Analyzers} {
		for _, a := range family {
			if _, ok := left[a.Analyzer.Name]; !ok && !a.Doc.NonDefault {
				analyzers = append(analyzers, a.Analyzer)
			}
		}
	}
	graph, err := checker.Analyze(analyzers, packages, nil)
	if err != nil {
		return err
	}
	if err := graph.PrintText(os.Stdout, -1); err != nil {
		return err
	}
	found := false
	for _, a := range graph.Roots {
		if a.Err != nil {
			return fmt.Errorf("%s of %s: %w", a.Analyzer.Name, a.Package.PkgPath, a.Err)
		}
		found = found || len(a.Diagnostics) > 0
	}
	if found {
		return errors.New("see above")
	}
	return nil
}

// load parses and type-checks the packages that match the patterns, tests included. Nothing else is parsed: what they import
// comes as the compiler's export data.
func load(patterns []string) ([]*packages.Package, error) {
	loaded, err := packages.Load(&packages.Config{Mode: packages.LoadSyntax | packages.NeedModule, Tests: true}, patterns...)
	if err != nil {
		return nil, err
	}
	var ours []*packages.Package
	var mistakes []error
	for _, p := range loaded {
		for _, e := range p.Errors {
			mistakes = append(mistakes, e)
		}
		// The main packages that go test makes up.
		if strings.HasSuffix(p.PkgPath, ".test") {
			continue
		}
		// Checks that know something about imported functions (that they print, or never return) want to see their source,
		// and would go through all of Kubernetes. What cannot be followed is not; nor is a package that is compiled once more
		// for the tests of another, whose own imports would be left as they are.
		for path, imported := range p.Imports {
			if len(imported.Syntax) == 0 || !slices.Contains(loaded, imported) {
				delete(p.Imports, path)
			}
		}
		ours = append(ours, p)
	}
	return ours, errors.Join(mistakes...)
}
