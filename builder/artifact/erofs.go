package artifact

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"time"

	"github.com/erofs/go-erofs"
)

// WriteEROFS writes the tree as an EROFS image (https://erofs.docs.kernel.org/en/latest/ondisk/core_ondisk.html)
// with blocks of 4096 bytes. All times are sourceDate, in Unix seconds. The same tree gives the same bytes.
func WriteEROFS(ctx context.Context, out io.WriteSeeker, t *Tree, sourceDate int64) error {
	w := erofs.Create(out, erofs.WithBuildTime(uint64(sourceDate), 0))
	fsys := newTreeFS(ctx, t, sourceDate)
	if err := w.CopyFrom(fsys); err != nil {
		return fmt.Errorf("cannot lay out the root file system: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("cannot write the root file system: %w", err)
	}
	return nil
}

// treeFS shows a Tree as an [fs.FS]. Files open at their first read and close at their end: the EROFS writer
// opens every file before it reads the first one, which would exhaust the descriptors of a workstation.
type treeFS struct {
	ctx      context.Context
	tree     *Tree
	date     int64
	children map[string][]fs.DirEntry
	subdirs  map[string]int
}

func newTreeFS(ctx context.Context, t *Tree, date int64) *treeFS {
	f := &treeFS{ctx: ctx, tree: t, date: date, children: map[string][]fs.DirEntry{}, subdirs: map[string]int{}}
	for _, e := range t.Entries() {
		if e.Path == "/" {
			continue
		}
		dir := path.Dir(e.Path)
		if e.isDir() {
			f.subdirs[dir]++
		}
	}
	for _, e := range t.Entries() {
		if e.Path != "/" {
			dir := path.Dir(e.Path)
			f.children[dir] = append(f.children[dir], fs.FileInfoToDirEntry(f.info(e)))
		}
	}
	for _, list := range f.children {
		sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	}
	return f
}

func (f *treeFS) info(e Entry) treeInfo {
	i := treeInfo{entry: e, date: f.date, links: 1}
	if e.isDir() {
		i.links = 2 + f.subdirs[e.Path]
	}
	return i
}

func (f *treeFS) lookup(op, name string) (Entry, error) {
	if !fs.ValidPath(name) {
		return Entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	e, ok := f.tree.Lookup(path.Join("/", name))
	if !ok {
		return Entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return e, nil
}

// Open implements [fs.FS].
func (f *treeFS) Open(name string) (fs.File, error) {
	e, err := f.lookup("open", name)
	if err != nil {
		return nil, err
	}
	return &treeFile{fsys: f, info: f.info(e), list: f.children[e.Path]}, nil
}

// ReadDir implements [fs.ReadDirFS].
func (f *treeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	return f.children[e.Path], nil
}

// Stat implements [fs.StatFS].
func (f *treeFS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return f.info(e), nil
}

// ReadLink implements [fs.ReadLinkFS]'s half that the EROFS writer asks for.
func (f *treeFS) ReadLink(name string) (string, error) {
	e, err := f.lookup("readlink", name)
	if err != nil {
		return "", err
	}
	return e.Target, nil
}

type treeInfo struct {
	entry Entry
	date  int64
	links int
}

func (i treeInfo) Name() string {
	if i.entry.Path == "/" {
		return "."
	}
	return path.Base(i.entry.Path)
}
func (i treeInfo) Size() int64        { return i.entry.Content.Bytes }
func (i treeInfo) Mode() fs.FileMode  { return i.entry.Mode }
func (i treeInfo) ModTime() time.Time { return time.Unix(i.date, 0).UTC() }
func (i treeInfo) IsDir() bool        { return i.entry.isDir() }

// Sys gives the EROFS writer owner (root), time and link count; without it the time would be 1970.
func (i treeInfo) Sys() any {
	return &erofs.Stat{Mtime: uint64(i.date), Nlink: i.links}
}

type treeFile struct {
	fsys *treeFS
	info treeInfo
	list []fs.DirEntry
	r    ContentReader
	done bool
}

func (f *treeFile) Stat() (fs.FileInfo, error) { return f.info, nil }

func (f *treeFile) Read(p []byte) (int, error) {
	if f.info.IsDir() {
		return 0, &fs.PathError{Op: "read", Path: f.info.entry.Path, Err: fs.ErrInvalid}
	}
	if err := f.fsys.ctx.Err(); err != nil {
		return 0, err
	}
	if f.done {
		return 0, io.EOF
	}
	if f.r == nil {
		r, err := f.info.entry.Content.Open()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.info.entry.Path, err)
		}
		f.r = r
	}
	n, err := f.r.Read(p)
	if err == io.EOF {
		f.done = true
	}
	return n, err
}

func (f *treeFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 {
		return nil, &fs.PathError{Op: "readdir", Path: f.info.entry.Path, Err: fs.ErrInvalid}
	}
	return f.list, nil
}

func (f *treeFile) Close() error {
	f.done = true
	if f.r == nil {
		return nil
	}
	r := f.r
	f.r = nil
	return r.Close()
}
