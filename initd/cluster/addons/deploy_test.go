package addons

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

var (
	secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
)

// cluster is an API server in memory with server-side apply, whose writes can be made to fail.
type cluster struct {
	*fake.FakeDynamicClient
	t      *testing.T
	calls  []string                // every request
	refuse func(call string) error // nil: none
	crds   *meta.DefaultRESTMapper
}

// noCache is a meta.ResettableRESTMapper that is always up to date.
type noCache struct{ meta.RESTMapper }

func (noCache) Reset() {}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, crds: meta.NewDefaultRESTMapper(nil)}
	lists := map[schema.GroupVersionResource]string{secrets: "SecretList", widgets: "WidgetList"}
	c.FakeDynamicClient = fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists)
	c.PrependReactor("*", "*", func(a ktesting.Action) (bool, runtime.Object, error) {
		call := a.GetVerb() + " " + a.GetResource().Resource
		if n, ok := a.(interface{ GetName() string }); ok {
			call += " " + n.GetName()
		}
		c.calls = append(c.calls, call)
		if c.refuse != nil {
			if err := c.refuse(call); err != nil {
				return true, nil, err
			}
		}
		if p, ok := a.(ktesting.PatchAction); ok && p.GetPatchType() == types.ApplyPatchType {
			u := &unstructured.Unstructured{}
			if err := u.UnmarshalJSON(p.GetPatch()); err != nil {
				return true, nil, err
			}
			u.SetUID(types.UID("uid of " + u.GetName()))
			if _, err := c.Tracker().Get(a.GetResource(), a.GetNamespace(), u.GetName()); err == nil {
				return true, u, c.Tracker().Update(a.GetResource(), u, a.GetNamespace())
			}
			return true, u, c.Tracker().Create(a.GetResource(), u, a.GetNamespace())
		}
		return false, nil, nil
	})
	return c
}

// start is a deployer as after a start of the server, with only the operator's add-ons, and a clock of its own.
func (c *cluster) start(dir string, disable ...string) (*deployer, *record.FakeRecorder, *time.Time) {
	events := record.NewFakeRecorder(100)
	clock := time.Unix(1000, 0)
	return &deployer{
		client:  c.FakeDynamicClient,
		mapper:  &mapper{known: builtinKinds(), discovered: noCache{c.crds}},
		events:  events,
		log:     slog.New(slog.DiscardHandler),
		source:  source{dir: dir, disabled: append(slices.Clone(builtin), disable...)},
		now:     func() time.Time { return clock },
		pending: map[string]*attempt{},
	}, events, &clock
}

// objects lists what is in the cluster, without the inventory.
func (c *cluster) objects() string {
	c.t.Helper()
	var out []string
	calls, refuse := c.calls, c.refuse
	c.refuse = nil
	for _, resource := range []schema.GroupVersionResource{secrets, widgets} {
		list, err := c.Resource(resource).List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, u := range list.Items {
			value, _, _ := unstructured.NestedString(u.Object, "stringData", "v")
			out = append(out, strings.TrimSpace(refTo(&u).String()+" "+value))
		}
	}
	c.calls, c.refuse = calls, refuse
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (c *cluster) inventory() map[string]entry {
	c.t.Helper()
	inv, err := loadInventory(c.t.Context(), c.FakeDynamicClient)
	if err != nil {
		c.t.Fatal(err)
	}
	return inv
}

func secret(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData: {v: %q}\n", name, value)
}

func drain(events *record.FakeRecorder) string {
	var out []string
	for {
		select {
		case e := <-events.Events:
			out = append(out, e)
		default:
			return strings.Join(out, "\n")
		}
	}
}

func TestUnchangedAddonsCostOneRead(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1")+"---\n"+secret("two", "2"))
	d, _, _ := c.start(dir)
	if next := d.pass(t.Context()); next != 0 {
		t.Errorf("wants to try again after %v", next)
	}
	if got, want := c.objects(), "Secret default/one 1, Secret default/two 2"; got != want {
		t.Fatalf("cluster has %s, want %s", got, want)
	}
	u, err := c.Tracker().Get(secrets, "default", "one")
	if err != nil {
		t.Fatal(err)
	}
	m := u.(*unstructured.Unstructured)
	if m.GetLabels()[addonLabel] != "a" || m.GetAnnotations()[digestAnnotation] == "" {
		t.Errorf("marks are missing: %v %v", m.GetLabels(), m.GetAnnotations())
	}

	for _, again := range []string{"the same server", "a server that starts"} {
		c.calls = nil
		if again != "the same server" {
			d, _, _ = c.start(dir)
		}
		d.pass(t.Context())
		if want := []string{"get configmaps skerry-addons"}; !slices.Equal(c.calls, want) {
			t.Errorf("%s did %q, want %q", again, c.calls, want)
		}
	}
}

func TestChanges(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1")+"---\n"+secret("two", "2"))
	write(t, dir, "b.yaml", secret("three", "3"))
	d, _, _ := c.start(dir)
	d.pass(t.Context())
	c.calls = nil

	// Only what changed is written; what is no longer in the file goes; the other add-on is not touched.
	write(t, dir, "a.yaml", "# moved\n"+secret("one", "1")+"---\n"+secret("four", "4"))
	d.pass(t.Context())
	if got, want := c.objects(), "Secret default/four 4, Secret default/one 1, Secret default/three 3"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	want := []string{"get configmaps skerry-addons", "patch secrets four", "get secrets two", "delete secrets two", "patch configmaps skerry-addons"}
	if !slices.Equal(c.calls, want) {
		t.Errorf("did %q, want %q", c.calls, want)
	}
}

func TestMoveToAnotherNamespace(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1"))
	d, _, _ := c.start(dir)
	d.pass(t.Context())
	write(t, dir, "a.yaml", strings.Replace(secret("one", "1"), "name: one", "name: one, namespace: apps", 1))
	d.pass(t.Context())
	if got, want := c.objects(), "Secret apps/one 1"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
}

func TestRemovedFileRemovesNothing(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1"))
	d, _, _ := c.start(dir)
	d.pass(t.Context())
	write(t, dir, "a.yaml.skip", "")
	write(t, dir, "a.yaml", secret("one", "changed"))
	d.pass(t.Context())
	if got, want := c.objects(), "Secret default/one 1"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	d, _, _ = c.start(t.TempDir())
	d.pass(t.Context())
	if got, want := c.objects(), "Secret default/one 1"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
}

func TestDisable(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1")+"---\n"+secret("taken", "2"))
	write(t, dir, "b.yaml", secret("three", "3"))
	d, _, _ := c.start(dir)
	d.pass(t.Context())
	o, err := c.Tracker().Get(secrets, "default", "taken")
	if err != nil {
		t.Fatal(err)
	}
	taken := o.DeepCopyObject().(*unstructured.Unstructured)
	taken.SetLabels(nil) // the operator takes it over
	if err := c.Tracker().Update(secrets, taken, "default"); err != nil {
		t.Fatal(err)
	}

	d, _, _ = c.start(dir, "a")
	d.pass(t.Context())
	if got, want := c.objects(), "Secret default/taken 2, Secret default/three 3"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	if inv := c.inventory(); len(inv) != 1 || inv["b"].Digest == "" {
		t.Errorf("inventory is %+v", inv)
	}
	c.calls = nil
	d.pass(t.Context())
	if len(c.calls) != 1 {
		t.Errorf("a disabled add-on costs %q", c.calls)
	}
	d, _, _ = c.start(dir) // enabled again
	d.pass(t.Context())
	if got, want := c.objects(), "Secret default/one 1, Secret default/taken 2, Secret default/three 3"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
}

func TestBadManifestDoesNotStopOthers(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", "apiVersion: v1\nkind: Secret\n metadata: {}\n")
	write(t, dir, "b.yaml", secret("one", "1"))
	d, events, clock := c.start(dir)
	next := d.pass(t.Context())
	if got, want := c.objects(), "Secret default/one 1"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	if next != firstRetry {
		t.Errorf("tries again after %v, want %v", next, firstRetry)
	}
	if got := drain(events); !strings.Contains(got, "Warning AddonFailed cannot apply "+dir+"/a.yaml: "+dir+"/a.yaml:3: cannot read YAML") {
		t.Errorf("events are %q", got)
	}
	// It is told once, and tried ever more rarely.
	var waits []time.Duration
	for range 10 {
		*clock = clock.Add(next)
		next = d.pass(t.Context())
		waits = append(waits, next)
	}
	if got := drain(events); got != "" {
		t.Errorf("told again: %q", got)
	}
	want := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute, time.Minute}
	if !slices.Equal(waits, want) {
		t.Errorf("waits are %v, want %v", waits, want)
	}
	// A mended file does not wait for the retry.
	write(t, dir, "a.yaml", secret("two", "2"))
	if next := d.pass(t.Context()); next != 0 {
		t.Errorf("wants to try again after %v", next)
	}
	if got, want := c.objects(), "Secret default/one 1, Secret default/two 2"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
}

func TestRetryDoesOnlyWhatIsMissing(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1")+"---\n"+secret("two", "2")+"---\n"+secret("three", "3"))
	d, events, clock := c.start(dir)
	c.refuse = func(call string) error {
		if call == "patch secrets two" {
			return apierrors.NewBadRequest("webhook says no")
		}
		return nil
	}
	*clock = clock.Add(d.pass(t.Context()))
	if got, want := c.objects(), "Secret default/one 1, Secret default/three 3"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	if got := drain(events); !strings.Contains(got, "a.yaml:6: Secret default/two: webhook says no") {
		t.Errorf("events are %q", got)
	}
	c.refuse, c.calls = nil, nil
	if next := d.pass(t.Context()); next != 0 {
		t.Errorf("wants to try again after %v", next)
	}
	want := []string{"get configmaps skerry-addons", "patch secrets two", "patch configmaps skerry-addons"}
	if !slices.Equal(c.calls, want) {
		t.Errorf("did %q, want %q", c.calls, want)
	}
}

func TestObjectThatCannotBeChangedIsStillRemovedLater(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1")+"---\n"+secret("two", "2"))
	d, _, clock := c.start(dir)
	d.pass(t.Context())
	c.refuse = func(call string) error {
		if call == "patch secrets one" {
			return apierrors.NewBadRequest("field is immutable")
		}
		return nil
	}
	write(t, dir, "a.yaml", secret("one", "changed")+"---\n"+secret("two", "changed"))
	*clock = clock.Add(d.pass(t.Context()))
	c.refuse = nil
	d, _, _ = c.start(dir, "a")
	d.pass(t.Context())
	if got := c.objects(); got != "" {
		t.Errorf("cluster has %s", got)
	}
}

// While a cluster starts, the server is not there, then kinds and namespaces are not: nobody needs to hear of it.
func TestStartingClusterIsQuiet(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1")+"---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: apps}\n")
	d, events, clock := c.start(dir)
	down := true
	c.refuse = func(string) error {
		if down {
			return apierrors.NewServiceUnavailable("starting")
		}
		return nil
	}
	*clock = clock.Add(d.pass(t.Context()))
	*clock = clock.Add(d.pass(t.Context()))
	down = false
	*clock = clock.Add(d.pass(t.Context()))
	if got, want := c.objects(), "Secret default/one 1"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	c.crds.Add(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"}, meta.RESTScopeNamespace)
	if next := d.pass(t.Context()); next != 0 {
		t.Errorf("wants to try again after %v", next)
	}
	if got, want := c.objects(), "Secret default/one 1, Widget apps/w"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	if got := drain(events); got != "" {
		t.Errorf("told %q", got)
	}
}

func TestUnknownKindIsToldInTheEnd(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "chart.yaml", "apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: w}\n")
	d, events, clock := c.start(dir)
	for range quietTries {
		*clock = clock.Add(d.pass(t.Context()))
	}
	if got := drain(events); got != "" {
		t.Errorf("told too early: %q", got)
	}
	d.pass(t.Context())
	if got := drain(events); !strings.Contains(got, `chart.yaml:1: HelmChart w: no matches for kind "HelmChart" in version "helm.cattle.io/v1"`) {
		t.Errorf("events are %q", got)
	}
}

func TestRepair(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1")+"---\n"+secret("two", "2")+"---\n"+secret("three", "3"))
	write(t, dir, "b.yaml", secret("four", "4"))
	d, _, _ := c.start(dir)
	d.pass(t.Context())
	if err := c.Tracker().Delete(secrets, "default", "one"); err != nil {
		t.Fatal(err)
	}
	edited, err := c.Tracker().Get(secrets, "default", "two")
	if err != nil {
		t.Fatal(err)
	}
	u := edited.DeepCopyObject().(*unstructured.Unstructured)
	if err := unstructured.SetNestedField(u.Object, "by hand", "stringData", "v"); err != nil {
		t.Fatal(err)
	}
	if err := c.Tracker().Update(secrets, u, "default"); err != nil {
		t.Fatal(err)
	}
	if err := d.repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.calls = nil
	d.pass(t.Context())
	if got, want := c.objects(), "Secret default/four 4, Secret default/one 1, Secret default/three 3, Secret default/two by hand"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	want := []string{"get configmaps skerry-addons", "patch secrets one", "patch configmaps skerry-addons"}
	if !slices.Equal(c.calls, want) {
		t.Errorf("did %q, want %q", c.calls, want)
	}
}

func TestServersShareTheInventory(t *testing.T) {
	c := newCluster(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	write(t, dirA, "a.yaml", secret("one", "1"))
	write(t, dirB, "b.yaml", secret("two", "2"))
	a, _, _ := c.start(dirA)
	b, _, _ := c.start(dirB)
	a.pass(t.Context())
	b.pass(t.Context())
	a.pass(t.Context())
	if got, want := c.objects(), "Secret default/one 1, Secret default/two 2"; got != want {
		t.Errorf("cluster has %s, want %s", got, want)
	}
	if inv := c.inventory(); inv["a"].Digest == "" || inv["b"].Digest == "" {
		t.Errorf("inventory is %+v", inv)
	}
}

func TestInventoryIsMadeOnce(t *testing.T) {
	c := newCluster(t)
	// Another server makes it between our patch and our create.
	raced := false
	c.refuse = func(call string) error {
		if strings.HasPrefix(call, "create configmaps") && !raced {
			raced = true
			cm := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
				"metadata": map[string]any{"name": inventoryName, "namespace": inventoryNamespace}, "data": map[string]any{"other": `{"digest":"x"}`}}}
			if err := c.Tracker().Create(configMaps, cm, inventoryNamespace); err != nil {
				return err
			}
		}
		return nil
	}
	if err := saveInventory(t.Context(), c, "mine", &entry{Digest: "y"}); err != nil {
		t.Fatal(err)
	}
	if inv := c.inventory(); !raced || inv["mine"].Digest != "y" || inv["other"].Digest != "x" {
		t.Errorf("inventory is %+v", inv)
	}
	if err := saveInventory(t.Context(), c, "mine", nil); err != nil {
		t.Fatal(err)
	}
	if inv := c.inventory(); len(inv) != 1 {
		t.Errorf("inventory is %+v", inv)
	}
	c.refuse = func(string) error { return errors.New("disk full") }
	if err := saveInventory(t.Context(), c, "mine", &entry{}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error is %v", err)
	}
}

func TestDamagedInventoryMeansApplyAnew(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	write(t, dir, "a.yaml", secret("one", "1"))
	d, _, _ := c.start(dir)
	d.pass(t.Context())
	patch, _ := json.Marshal(map[string]any{"data": map[string]string{"a": "{"}})
	if _, err := c.Resource(configMaps).Namespace(inventoryNamespace).Patch(t.Context(), inventoryName, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	d.pass(t.Context())
	if c.inventory()["a"].Digest == "" {
		t.Error("add-on was not applied anew")
	}
}
