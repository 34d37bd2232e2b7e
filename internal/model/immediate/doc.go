// Package immediate is a model of how a local cache stays coherent when every write publishes inline, which
// means that it notifies in its own transaction. Its tests walk through everything that can happen, in every order, and then
// once more with each rule of the algorithm taken away, to see that it is needed.
//
// # What is modelled
//
// One key, and one node that keeps it in a local cache. The database has the key's row, or none, and a queue of
// notifications to the node's listener, in commit order. Around it happen, each once per unit of the size:
//
//   - Gets on the node: a hit, or a fetch in three steps (begin, snapshot, finish), or joining a fetch under way. A fetch is what
//     package coherence calls a Read.
//   - Sets on the node: begin, commit, finish; the last one may give up before its commit, which comes all the same
//   - Sets and one Delete by others; a Delete leaves a tombstone, which the janitor takes away
//   - a gap: the listener is lost, LISTEN commits again, the listener is live again
//
// Times, transactions and several keys are not modelled; nodes meet in rows and notifications only, so one local cache
// stands for all.
//
// A commit has a number, its place in the order of commits, and a version, which is only ever compared for being the
// same. The algorithm sees versions. The numbers are for the checks.
//
// # What is checked
//
// P1, P3 and P4 are those of docs/promises.md. P2 is about time. INV is the model's own.
//
//   - P1: after a notification was applied, no Get that starts later returns an older commit. The same holds for what
//     had been committed when the listener came back.
//   - P3: no Get that starts after the node's own Set returned returns an older commit.
//   - P4: no Get returns an older commit than one that had returned before it started.
//   - INV: where the local cache would serve an entry that is no longer the newest commit, a notification is still
//     queued that will evict it. It is what makes staleness short.
//
// # What each rule prevents
//
// The walk finds a shortest way to break a promise without the rule; go test -v prints it in full.
//
//   - A notification kills fetches under way. Else one takes its snapshot, the notification of a newer commit finds
//     nothing to evict, and the fetch stores the old row (INV).
//   - A killed fetch takes no new joiners. Else a Get that starts after the notification joins it and returns what it
//     read before (P1).
//   - Entries and fetches belong to an epoch, which ends where the listener is lost and where it comes back. Else an
//     entry is served whose notification was sent while nobody listened (INV).
//   - Somebody else's notification keeps a Set under way from storing. Else the other's commit follows the Set's, its
//     notification is applied, and the Set stores the older value (INV).
//   - Sets that overlap on a node both store nothing. Else the one that committed first may be the one that stores
//     last (INV).
//   - A Set kills fetches at its end too. Else one that began while it ran, and read the row before its commit, gains
//     a joiner after the Set returned (P3).
//   - A read that saw another version than the entry evicts it, whether or not it may store. Else a Get returns a newer
//     commit from a fetch and the next one an older commit from the local cache (P4).
//   - The listener is live only once LISTEN has committed. Else what commits in between is never received (INV).
//   - A Delete notifies. Else the entry outlives its row (INV).
//   - Versions are compared for being the same, never for being older. Else, where the versions of a row count up from
//     one and a Delete takes the row away, the Delete has no newer version to name and the entry outlives the row (INV).
package immediate
