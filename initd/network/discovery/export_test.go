package discovery

import "time"

// WithoutChance makes the responder wait no longer than it must.
func (r *Responder) WithoutChance() { r.random = func(time.Duration) time.Duration { return 0 } }
