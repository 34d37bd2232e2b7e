// Package proof asks a checker that is not ours whether single keys are linearizable: with the local cache off and no listener,
// every operation on one key must seem to happen at one moment between its call and its return, whatever is shared between
// callers on the way and whatever sessions are ended. It is a module of its own, so that the checker is no dependency of
// the library.
//
//	make linear
package proof
