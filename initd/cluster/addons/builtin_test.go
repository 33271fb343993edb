package addons

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	aggregator "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func rendered(t *testing.T, name string) []object {
	t.Helper()
	v, err := Values{ClusterDNS: "10.99.0.10", ClusterDomain: "example.internal", StoragePath: "/data/volumes", Binary: "/opt/skerryd"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	text, err := v.render(name)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("${")) {
		t.Errorf("%s has a value that is not filled", name)
	}
	objects, err := parse(name+".yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// Every built-in manifest decodes strictly into the API's types (no misspelt field) and needs no discovery.
func TestBuiltinsAreValid(t *testing.T) {
	s := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(s))
	utilruntime.Must(aggregator.AddToScheme(s))
	kinds := builtinKinds()
	files, err := manifests.ReadDir("manifests")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(builtin) {
		t.Errorf("%d manifests for %d add-ons", len(files), len(builtin))
	}
	for _, name := range builtin {
		for _, o := range rendered(t, name) {
			id := refTo(o.Unstructured).String()
			typed, err := s.New(o.GroupVersionKind())
			if err != nil {
				t.Errorf("%s: %v", id, err)
				continue
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, typed, true); err != nil {
				t.Errorf("%s:%d %s: %v", name, o.line, id, err)
			}
			if _, err := kinds.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version); err != nil {
				t.Errorf("%s costs a discovery: %v", id, err)
			}
		}
	}
}

// Names and labels that K3s users' scripts rely on.
func TestBuiltinNames(t *testing.T) {
	want := map[string][]string{
		"coredns": {"ConfigMap kube-system/coredns", "Service kube-system/kube-dns k8s-app=kube-dns", "Deployment kube-system/coredns k8s-app=kube-dns"},
		"local-storage": {"StorageClass local-path", "ConfigMap kube-system/local-path-config",
			"Deployment kube-system/local-path-provisioner app=local-path-provisioner"},
		"metrics-server": {"Service kube-system/metrics-server k8s-app=metrics-server", "Deployment kube-system/metrics-server k8s-app=metrics-server",
			"APIService v1beta1.metrics.k8s.io"},
	}
	for name, ids := range want {
		var got []string
		for _, o := range rendered(t, name) {
			id := refTo(o.Unstructured).String()
			got = append(got, id)
			for _, key := range []string{"k8s-app", "app"} {
				if value, ok := o.GetLabels()[key]; ok {
					got = append(got, id+" "+key+"="+value)
				}
			}
		}
		for _, id := range ids {
			if !slices.Contains(got, id) {
				t.Errorf("%s has no %s, but %q", name, id, got)
			}
		}
	}
}

func TestBuiltinValues(t *testing.T) {
	for name, fields := range map[string]map[string]string{
		"Service kube-system/kube-dns":                  {"clusterIP: ": "10.99.0.10"},
		"ConfigMap kube-system/coredns":                 {"kubernetes ": "example.internal in-addr.arpa ip6.arpa {"},
		"ConfigMap kube-system/local-path-config":       {`"paths": `: `["/data/volumes"]`},
		"Deployment kube-system/coredns":                {"path: ": "/opt/skerryd"},
		"Deployment kube-system/metrics-server":         {"path: ": "/opt/skerryd"},
		"Deployment kube-system/local-path-provisioner": {"--storage=": "/data/volumes", "--helper-binary=": "/opt/skerryd", "--helper-image=": "skerry.internal/pause:1"},
	} {
		found := false
		for _, addon := range builtin {
			for _, o := range rendered(t, addon) {
				if refTo(o.Unstructured).String() != name {
					continue
				}
				found = true
				text, _ := runtime.Encode(unstructured.UnstructuredJSONScheme, o.Unstructured)
				for _, value := range fields {
					if !strings.Contains(string(text), strings.ReplaceAll(value, `"`, `\"`)) {
						t.Errorf("%s lacks %q:\n%s", name, value, text)
					}
				}
			}
		}
		if !found {
			t.Errorf("there is no %s", name)
		}
	}
}

// All pods of add-ons are as locked up as they can be.
func TestBuiltinPodsAreTight(t *testing.T) {
	for _, name := range builtin {
		for _, o := range rendered(t, name) {
			if o.GetKind() != "Deployment" {
				continue
			}
			var d struct {
				metav1.TypeMeta `json:",inline"`
				Spec            struct {
					Template corev1.PodTemplateSpec `json:"template"`
				} `json:"spec"`
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
				t.Fatal(err)
			}
			spec := d.Spec.Template.Spec
			if spec.SecurityContext == nil || spec.SecurityContext.SeccompProfile == nil || spec.PriorityClassName == "" || spec.HostNetwork {
				t.Errorf("%s: pod: %+v", name, spec.SecurityContext)
			}
			for _, c := range spec.Containers {
				s := c.SecurityContext
				if s == nil || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
					t.Errorf("%s: container: %+v", name, s)
				}
				if c.ImagePullPolicy != corev1.PullNever || c.Resources.Requests.Memory().IsZero() || c.Command[0] != c.VolumeMounts[0].MountPath {
					t.Errorf("%s: container: %+v", name, c)
				}
			}
		}
	}
}

func TestRenderRefusesUnknownValue(t *testing.T) {
	if _, err := (Values{}).render("none"); err == nil {
		t.Error("a manifest that is not there was rendered")
	}
}
