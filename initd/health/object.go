package health

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/skerryos/skerry/initd/config"
)

// An object is what most kinds of Kubernetes have in common, and a little of Jobs.
type object struct {
	Metadata struct {
		Generation int64 `json:"generation"`
	} `json:"metadata"`
	Spec struct {
		Suspend     bool `json:"suspend"`
		Completions *int `json:"completions"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration int64       `json:"observedGeneration"`
		Conditions         []condition `json:"conditions"`
		Active             int         `json:"active"`
		Succeeded          int         `json:"succeeded"`
	} `json:"status"`
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// why is what the condition says besides its status.
func (c condition) why() string {
	switch {
	case c.Message == "":
		return c.Reason
	case c.Reason == "":
		return c.Message
	}
	return c.Reason + ", " + c.Message
}

func (o *object) condition(kind string) (condition, bool) {
	for _, c := range o.Status.Conditions {
		if c.Type == kind {
			return c, true
		}
	}
	return condition{}, false
}

// condition passes when the condition of an object is True, and was seen by the object's controller since the object was changed.
func (c *Cluster) condition(check config.ObjectCheck) func(context.Context) error {
	what := check.Resource + " " + full(check.Namespace, check.Name)
	return func(ctx context.Context) error {
		var o object
		if err := c.find(ctx, check, &o); err != nil {
			return err
		}
		got, ok := o.condition(check.Condition)
		switch {
		case o.Status.ObservedGeneration != 0 && o.Status.ObservedGeneration < o.Metadata.Generation:
			return fmt.Errorf("%s was changed, and its controller has not seen that yet", what)
		case !ok:
			return fmt.Errorf("%s has no condition %s yet", what, check.Condition)
		case got.Status != "True":
			return errors.New(strings.TrimSuffix(fmt.Sprintf("%s: condition %s is %s: %s", what, check.Condition, got.Status, got.why()), ": "))
		}
		return nil
	}
}

// full is the name of an object as kubectl writes it.
func full(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// find asks which version of its group the API server prefers, and then for the object.
func (c *Cluster) find(ctx context.Context, check config.ObjectCheck, into *object) error {
	plural, group, _ := strings.Cut(check.Resource, ".")
	path := "/api/v1"
	if group != "" {
		var g struct {
			PreferredVersion struct {
				Version string `json:"version"`
			} `json:"preferredVersion"`
		}
		err := c.get(ctx, "/apis/"+group, &g)
		if _, ok := missing(err); ok {
			return fmt.Errorf("the cluster has no API group %s", group)
		}
		if err != nil {
			return err
		}
		path = "/apis/" + group + "/" + g.PreferredVersion.Version
	}
	where := " in no namespace"
	if check.Namespace != "" {
		path += "/namespaces/" + check.Namespace
		where = " in namespaces"
	}
	err := c.get(ctx, path+"/"+plural+"/"+check.Name, into)
	if e, ok := missing(err); ok {
		if e.Details.Name == "" {
			return fmt.Errorf("the cluster has no resource %s%s", check.Resource, where)
		}
		return fmt.Errorf("%s %s does not exist", check.Resource, full(check.Namespace, check.Name))
	}
	return err
}

// job passes when a Job is complete. One that has failed is never going to be.
func (c *Cluster) job(check config.JobCheck) func(context.Context) error {
	if check.Namespace == "" {
		check.Namespace = "default"
	}
	what := "job " + full(check.Namespace, check.Name)
	return func(ctx context.Context) error {
		var o object
		err := c.get(ctx, "/apis/batch/v1/namespaces/"+check.Namespace+"/jobs/"+check.Name, &o)
		if _, ok := missing(err); ok {
			return fmt.Errorf("%s does not exist", what)
		}
		if err != nil {
			return err
		}
		if failed, _ := o.condition("Failed"); failed.Status == "True" {
			return Never(errors.New(strings.TrimSuffix(fmt.Sprintf("%s has failed: %s", what, failed.why()), ": ")))
		}
		complete, _ := o.condition("Complete")
		switch {
		case complete.Status == "True":
			return nil
		case o.Spec.Suspend:
			return fmt.Errorf("%s is suspended", what)
		}
		wanted := 1
		if o.Spec.Completions != nil {
			wanted = *o.Spec.Completions
		}
		return fmt.Errorf("%s is not complete: %d of %d pods have succeeded, %d are running", what, o.Status.Succeeded, wanted, o.Status.Active)
	}
}
