package addons

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/record"
)

const (
	// addonLabel on an object names the add-on it belongs to. An object whose label was removed or changed is no longer ours
	// to delete.
	addonLabel = "skerry.internal/addon"
	// digestAnnotation on an object is the digest of the manifest it was applied from.
	digestAnnotation = "skerry.internal/digest"
)

// Back-off of an add-on that cannot be applied.
const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = time.Minute
	// quietTries is how often an error that passes by itself while a cluster starts (no such kind yet, no such namespace
	// yet, server not there) is retried before anybody is told: about eight seconds.
	quietTries = 5
)

// deployer makes the cluster have what the source says. Its methods are called from one goroutine.
type deployer struct {
	client dynamic.Interface
	mapper *mapper
	events record.EventRecorder
	log    *slog.Logger
	source source
	now    func() time.Time

	pending  map[string]*attempt // by add-on name; "" is the pass itself
	problems []string            // what was told of files that cannot be add-ons
}

// attempt remembers how an add-on failed.
type attempt struct {
	digest   string
	failures int
	next     time.Time
	told     string
}

// pass brings the cluster to what the source says now, as far as it can, and returns after what time to try again; 0 is
// never. When nothing has changed it costs one read.
func (d *deployer) pass(ctx context.Context) time.Duration {
	list, err := d.source.list()
	if err == nil {
		d.tellProblems(list.problems)
		err = d.reconcile(ctx, list)
	}
	if err != nil {
		if ctx.Err() == nil {
			d.failed(&addon{path: d.source.dir}, err)
		}
	} else {
		delete(d.pending, "")
	}
	var next time.Duration
	for _, a := range d.pending {
		if wait := max(a.next.Sub(d.now()), time.Millisecond); next == 0 || wait < next {
			next = wait
		}
	}
	return next
}

// reconcile fails only when the inventory cannot be read: an add-on's own failure is kept in pending.
func (d *deployer) reconcile(ctx context.Context, list listing) error {
	inventory, err := loadInventory(ctx, d.client)
	if err != nil {
		return err
	}
	for name := range d.pending {
		listed := slices.ContainsFunc(list.addons, func(a addon) bool { return a.name == name }) || slices.Contains(list.disabled, name)
		if name != "" && !listed {
			delete(d.pending, name) // its file is gone
		}
	}
	for _, name := range list.disabled {
		old, ok := inventory[name]
		a := addon{name: name, path: old.Source, digest: "disabled"}
		if !ok || !d.due(a) {
			continue
		}
		if err := d.remove(ctx, name, old); err != nil {
			d.failed(&a, err)
			continue
		}
		delete(d.pending, name)
		d.log.Info("add-on removed", "addon", name, "objects", len(old.Objects))
	}
	for _, a := range list.addons {
		if inventory[a.name].Digest == a.digest {
			delete(d.pending, a.name)
			continue
		}
		if !d.due(a) {
			continue
		}
		changed, err := d.apply(ctx, a, inventory[a.name])
		if err != nil {
			d.failed(&a, err)
			continue
		}
		delete(d.pending, a.name)
		d.log.Info("add-on applied", "addon", a.name, "source", a.path, "changed", changed)
	}
	return nil
}

// due is false while the add-on waits for its next try with the same text.
func (d *deployer) due(a addon) bool {
	p := d.pending[a.name]
	return p == nil || p.digest != a.digest || !d.now().Before(p.next)
}

// failed schedules the next try, and tells of the error once, by log and Event, unless it may pass by itself.
func (d *deployer) failed(a *addon, err error) {
	p := d.pending[a.name]
	if p == nil || p.digest != a.digest {
		p = &attempt{digest: a.digest}
		d.pending[a.name] = p
	}
	wait := lastRetry
	if p.failures < 8 { // 250 ms << 8 is more than a minute
		wait = min(firstRetry<<p.failures, lastRetry)
	}
	p.failures++
	p.next = d.now().Add(wait)
	if passing(err) && p.failures <= quietTries || p.told == err.Error() {
		d.log.Debug("add-on not applied yet", "addon", a.name, "try", p.failures, "error", err)
		return
	}
	p.told = err.Error()
	d.tell("AddonFailed", fmt.Sprintf("cannot apply %s: %v; other add-ons are not affected; trying again", a.path, err))
}

// passing tells errors that are usual while a cluster starts.
func passing(err error) bool {
	return meta.IsNoMatchError(err) || apierrors.IsNotFound(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsForbidden(err) ||
		utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err)
}

func (d *deployer) tell(reason, message string) {
	d.log.Error(message)
	d.events.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: inventoryNamespace, Name: inventoryName},
		corev1.EventTypeWarning, reason, message)
}

func (d *deployer) tellProblems(problems []problem) {
	var told []string
	for _, p := range problems {
		message := fmt.Sprintf("cannot use %s as an add-on: %v", p.path, p.err)
		if !slices.Contains(d.problems, message) {
			d.tell("AddonIgnored", message)
		}
		told = append(told, message)
	}
	d.problems = told
}

// apply applies the objects whose manifest differs from what old says was applied, removes those that old has and a has not,
// and writes the inventory: the digest only when all went well, so that the next try does only what is missing.
// It returns how many objects it changed.
func (d *deployer) apply(ctx context.Context, a addon, old entry) (int, error) {
	objects, err := parse(a.path, a.text)
	if err != nil {
		return 0, err
	}
	var (
		errs    []error
		changed int
		now     = entry{Source: a.path}
		keep    []ref
	)
	for _, o := range objects {
		info, did, err := d.applyObject(ctx, a.name, o, old)
		keep = append(keep, info.ref)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s: %w", a.path, o.line, info.ref, err))
			continue
		}
		if did {
			changed++
		}
		now.Objects = append(now.Objects, info)
	}
	for _, info := range slices.Backward(old.Objects) {
		if slices.ContainsFunc(keep, info.same) {
			// An object that could not be applied this time stays in the inventory, to be removed one day.
			if !slices.ContainsFunc(now.Objects, func(n objectInfo) bool { return n.same(info.ref) }) {
				now.Objects = append(now.Objects, objectInfo{ref: info.ref})
			}
			continue
		}
		if err := d.removeObject(ctx, a.name, info.ref); err != nil {
			errs = append(errs, fmt.Errorf("cannot remove %s, which %s no longer has: %w", info.ref, a.path, err))
			now.Objects = append(now.Objects, info)
			continue
		}
		changed++
	}
	if errs == nil {
		now.Digest = a.digest
	}
	if changed > 0 || errs == nil {
		if err := saveInventory(ctx, d.client, a.name, &now); err != nil {
			errs = append(errs, err)
		}
	}
	return changed, errors.Join(errs...)
}

// applyObject applies o unless old says that this very manifest was applied.
func (d *deployer) applyObject(ctx context.Context, name string, o object, old entry) (info objectInfo, did bool, err error) {
	info.ref = refTo(o.Unstructured)
	text, err := json.Marshal(o.Object)
	if err != nil {
		return info, false, err
	}
	mapping, err := d.mapper.find(o.GroupVersionKind())
	if err != nil {
		return info, false, err
	}
	namespaced := mapping.Scope.Name() == meta.RESTScopeNameNamespace
	switch {
	case namespaced && info.Namespace == "":
		info.Namespace = metav1.NamespaceDefault
	case !namespaced:
		info.Namespace = ""
	}
	info.Digest = digest(text)
	if slices.Contains(old.Objects, info) {
		return info, false, nil
	}
	u := o.DeepCopy()
	u.SetNamespace(info.Namespace)
	u.SetLabels(with(u.GetLabels(), addonLabel, name))
	u.SetAnnotations(with(u.GetAnnotations(), digestAnnotation, info.Digest))
	if text, err = u.MarshalJSON(); err != nil {
		return info, false, err
	}
	force := true
	_, err = d.resource(mapping, info.Namespace).Patch(ctx, info.Name, types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	return info, err == nil, err
}

func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

func (d *deployer) resource(m *meta.RESTMapping, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return d.client.Resource(m.Resource)
	}
	return d.client.Resource(m.Resource).Namespace(namespace)
}

// remove deletes all objects of an add-on, last made first, then its entry.
func (d *deployer) remove(ctx context.Context, name string, e entry) error {
	var errs []error
	for _, info := range slices.Backward(e.Objects) {
		if err := d.removeObject(ctx, name, info.ref); err != nil {
			errs = append(errs, fmt.Errorf("cannot remove %s: %w", info.ref, err))
		}
	}
	if errs != nil {
		return errors.Join(errs...)
	}
	return saveInventory(ctx, d.client, name, nil)
}

// removeObject deletes an object that still carries the add-on's label. One that is gone, with or without its kind, is success.
func (d *deployer) removeObject(ctx context.Context, name string, r ref) error {
	mapping, err := d.mapper.find(r.gvk())
	if meta.IsNoMatchError(err) {
		return nil
	} else if err != nil {
		return err
	}
	resource := d.resource(mapping, r.Namespace)
	u, err := resource.Get(ctx, r.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return err
	}
	if u.GetLabels()[addonLabel] != name {
		d.log.Warn("object left in place: it no longer belongs to the add-on", "object", r.String(), "addon", name)
		return nil
	}
	uid, policy := u.GetUID(), metav1.DeletePropagationBackground
	err = resource.Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &policy})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // conflict: somebody has made it anew meanwhile
		return nil
	}
	return err
}

// repair strikes from the inventory what is no longer in the cluster as it was applied, so that the next pass applies it
// again. Fields that an operator changed are left: only objects that are gone, or have lost our annotation, count.
func (d *deployer) repair(ctx context.Context) error {
	inventory, err := loadInventory(ctx, d.client)
	if err != nil {
		return err
	}
	list, err := d.source.list()
	if err != nil {
		return err
	}
	for _, a := range list.addons {
		e, ok := inventory[a.name]
		if !ok || e.Digest != a.digest {
			continue // the pass has it in hand
		}
		var damaged []string
		for i, info := range e.Objects {
			intact, err := d.intact(ctx, info)
			if err != nil {
				return fmt.Errorf("cannot look at %s: %w", info.ref, err)
			}
			if !intact {
				e.Objects[i].Digest = ""
				damaged = append(damaged, info.String())
			}
		}
		if damaged == nil {
			continue
		}
		e.Digest = ""
		d.log.Warn("add-on was damaged, applying it again", "addon", a.name, "objects", strings.Join(damaged, ", "))
		if err := saveInventory(ctx, d.client, a.name, &e); err != nil {
			return err
		}
	}
	return nil
}

func (d *deployer) intact(ctx context.Context, info objectInfo) (bool, error) {
	mapping, err := d.mapper.find(info.gvk())
	if meta.IsNoMatchError(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	var u *unstructured.Unstructured
	u, err = d.resource(mapping, info.Namespace).Get(ctx, info.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return u.GetAnnotations()[digestAnnotation] == info.Digest, nil
}
