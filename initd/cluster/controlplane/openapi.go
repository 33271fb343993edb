package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-base/version"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
)

// runAPIServer is apiserver.Run, but for two things. The rules of the cluster are there before and are checked later, see
// seed.go. And the OpenAPI documents of the built-in APIs are built when somebody asks for them: most devices are never
// asked; the documents would cost a fifth of the processor time of the start, and 50 MB for as long as the server runs.
func runAPIServer(ctx context.Context, opts apiserveroptions.CompletedOptions, flags []string) error {
	if opts.InformerName == nil {
		name, err := cache.NewInformerName("kube-apiserver")
		if err != nil {
			return err
		}
		opts.InformerName = name
	}
	config, err := apiserver.NewConfig(opts)
	if err != nil {
		return err
	}
	config.KubeAPIs.ControlPlane.Generic.SkipOpenAPIInstallation = true
	config.KubeAPIs.ControlPlane.Generic.DisabledPostStartHooks.Insert(rbacrest.PostStartHookName) // see EnsureRules
	completed, err := config.Complete()
	if err != nil {
		return err
	}
	aggregator, err := apiserver.CreateServerChain(completed)
	if err != nil {
		return err
	}
	builtIn, ok := aggregator.GenericAPIServer.NextDelegate().(*genericapiserver.GenericAPIServer)
	if !ok {
		return errors.New("the aggregator does not delegate to an API server")
	}
	generic := config.KubeAPIs.ControlPlane.Generic
	newOpenAPI(generic.OpenAPIConfig, generic.OpenAPIV3Config, builtIn, documentHash(flags)).register(builtIn.Handler.NonGoRestfulMux)
	prepared, err := aggregator.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}

// Where the documents are; https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-interface-definition.
const (
	v2Path = "/openapi/v2"
	v3Path = "/openapi/v3"
)

// An openAPI serves the documents of one API server. The aggregator asks it, and merges what it says with what other servers
// and custom resources add.
type openAPI struct {
	// v2 and v3 build on the first call. The one document of v2 has everything; v3 has one for each group and version, by the path
	// of that, so that kubectl apply waits for those of its manifest only.
	v2 func() http.Handler
	v3 map[string]func() http.Handler
	// index lists the documents of v3 without building them.
	index func() []byte
	// hash is what tells these documents from others in their addresses, for clients that keep them.
	hash string
}

func newOpenAPI(v2 *common.Config, v3 *common.OpenAPIV3Config, s *genericapiserver.GenericAPIServer, hash string) *openAPI {
	o := &openAPI{
		hash: hash,
		v2: sync.OnceValue(func() http.Handler {
			m := mux.NewPathRecorderMux("openapi-v2")
			routes.OpenAPI{Config: v2}.InstallV2(s.Handler.GoRestfulContainer, m)
			return m
		}),
		v3: map[string]func() http.Handler{},
	}
	list := handler3.OpenAPIV3Discovery{Paths: map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}}
	for _, service := range s.Handler.GoRestfulContainer.RegisteredWebServices() {
		name := strings.TrimPrefix(service.RootPath(), "/")
		list.Paths[name] = handler3.OpenAPIV3DiscoveryGroupVersion{
			ServerRelativeURL: v3Path + "/" + name + "?" + url.Values{"hash": {hash}}.Encode(),
		}
		o.v3[name] = sync.OnceValue(func() http.Handler {
			m := mux.NewPathRecorderMux("openapi-v3 " + name)
			routes.OpenAPI{V3Config: v3}.InstallV3(restful.NewContainer().Add(service), m)
			return m
		})
	}
	o.index = sync.OnceValue(func() []byte {
		b, err := json.Marshal(list)
		if err != nil {
			panic(err) // strings in a map
		}
		return b
	})
	return o
}

// documentHash stands for the content of all built-in documents: it is compiled in, and flags can change it.
func documentHash(flags []string) string {
	v := version.Get()
	sum := sha256.Sum256(fmt.Append(nil, v.GitVersion, v.GitCommit, v.BuildDate, flags))
	return hex.EncodeToString(sum[:])
}

func (o *openAPI) register(m *mux.PathRecorderMux) {
	m.HandleFunc(v2Path, func(w http.ResponseWriter, r *http.Request) { o.v2().ServeHTTP(w, r) })
	m.HandleFunc(v3Path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(o.index()) // fails when the client went away: nobody to tell
	})
	m.HandlePrefix(v3Path+"/", http.HandlerFunc(o.document))
}

// document serves one document of v3. Asked for by our hash it never changes; without the hash the handler says so itself.
func (o *openAPI) document(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("hash") == o.hash {
		r = r.Clone(r.Context())
		r.URL.RawQuery = ""
		w.Header().Set("Cache-Control", "public, immutable")
	}
	document, ok := o.v3[strings.TrimPrefix(r.URL.Path, v3Path+"/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	document().ServeHTTP(w, r)
}
