package health

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errCutOff says that the round ended before the check did.
var errCutOff = errors.New("cut off")

// A run is a check with what may still run of it.
type run struct {
	Check
	done chan error // nil when it does not run
}

// once runs the check and bounds it, whatever the check does.
func (r *run) once(ctx context.Context, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r.reap()
	if r.done == nil {
		done := make(chan error, 1)
		r.done = done
		go func() { done <- r.Run(bounded) }()
	}
	var err error
	select {
	case err = <-r.done:
		r.done = nil
	case <-bounded.Done():
		err = bounded.Err()
		// It may have answered at the same moment.
		select {
		case err = <-r.done:
			r.done = nil
		default:
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errCutOff
	case bounded.Err() != nil:
		return fmt.Errorf("no answer within %s", short(timeout))
	}
	return err
}

// reap takes note of the end of a run that was given up.
func (r *run) reap() {
	select {
	case <-r.done:
		r.done = nil
	default:
	}
}
