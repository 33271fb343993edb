// Command web is the server that the end-to-end tests run in pods.
//
//	GET  /             host name of the pod, so that a test sees which replica answered
//	GET  /healthz      "ok"
//	GET  /data/NAME    content of a file in the data directory
//	PUT  /data/NAME    replaces it, on disk when the answer is out: what a test wrote must survive a power cut
//
// Flags: -listen ADDRESS (default :8080), -data DIRECTORY (default /data). SIGTERM ends it after running requests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// maxFile bounds what a test may store, in bytes.
const maxFile = 1 << 20

func main() {
	listen := flag.String("listen", ":8080", "address to serve")
	data := flag.String("data", "/data", "directory of the files")
	flag.Parse()
	if err := run(*listen, *data); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(listen, data string) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("cannot find the host name: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := &http.Server{Addr: listen, Handler: handler(host, data), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(limit)
	}()
	slog.Info("serving", "address", listen, "host", host)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve %s: %w", listen, err)
	}
	return <-stopped
}

func handler(host, data string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		slog.Info("request", "from", r.RemoteAddr)
		fmt.Fprintln(w, host)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /data/{name}", func(w http.ResponseWriter, r *http.Request) {
		content, err := read(data, r.PathValue("name"))
		if errors.Is(err, fs.ErrNotExist) {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		} else if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Write(content)
	})
	mux.HandleFunc("PUT /data/{name}", func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFile))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		if err := write(data, r.PathValue("name"), content); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func read(data, name string) ([]byte, error) {
	root, err := os.OpenRoot(data)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.ReadFile(name)
}

// write replaces the file durably: content first, then its name, then the directory that has the name.
func write(data, name string, content []byte) error {
	if !filepath.IsLocal(name) || name != filepath.Base(name) {
		return fmt.Errorf("cannot write %q: not a plain file name", name)
	}
	if err := renameio.WriteFile(filepath.Join(data, name), content, 0o644); err != nil {
		return err
	}
	dir, err := os.Open(data)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
