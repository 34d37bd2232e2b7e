// Package window is a model of how a local cache stays coherent when writes do not notify by themselves: each leaves a
// row in a change log, and a flush drains the log and notifies once for everything in it. Its tests walk through
// everything that can happen, in every order, and then once more with each rule taken away, to see that it is needed.
//
// The rules of the local cache itself are those of package immediate. What is new is when a notification is sent, and
// who sees to it that one is.
//
// # What is modelled
//
// One key; node L, which keeps it in a local cache; node R, which writes it. The database has the row, the change log
// and a queue of notifications to L's listener, in commit order. R's way to learn of a notification is left out: it
// receives it at once. Around it happen, as often as the scenario says:
//
//   - L's Gets and Sets, as in package immediate; the last Set may give up before its commit, which comes all the same
//   - R's Sets, and its Delete, which leaves a tombstone that the janitor takes away
//   - flushes by either node, each in two steps (its snapshot, its commit), which may fail in between
//   - L's pulses: flushes of whatever is there, whoever wrote it; where no flush succeeds, L forgets instead
//   - R's death at any time; a flush that it has sent goes on in the server, to commit or to fail
//   - inline publishes, mixed with the other writes
//   - writes whose rows nobody keeps (LocalNever), which are silent in the place of one another
//   - a gap in what L's listener receives
//
// A write that is not acknowledged yet, or was and is not published, is pending: its node keeps a pending change for its
// version and flushes until something takes the pending change off. A flush beside another does nothing. A version is the
// operation that made it. The algorithm compares versions for being the same; only the checks, and the flush's SQL, know
// which commit came first.
//
// Time is not modelled. "Owed" stands for it: somebody alive is bound to act, within the window or by a pulse.
//
// # What is checked
//
// After every step:
//
//   - No Get returns an older commit than it must: one that L had applied a notification of (P1), had set itself (P3)
//     or had returned (P4) before the Get started.
//   - Every commit that others have to learn of is published, or in the log, or followed by one that is published. Else its
//     invalidation is lost.
//   - Every log row that has not been overtaken in this way is owed: its writer lives and keeps a pending change for it, or its
//     writer is dead, or had given up before the commit, and there are pulses.
//   - Where no flush succeeds, a Get that starts after a pulse returns nothing older than the pulse has found.
//   - INV: where L would serve an entry that is no longer the newest commit, a notification is queued that will evict
//     it, or the log row of a newer commit is owed.
//   - Nothing ends with log rows or notifications left.
//
// The second and third say nothing about L's cache, so they hold for every node's.
//
// # What each rule prevents
//
// The walk finds a shortest way to break a promise without the rule; go test -v prints it in full. The rules of package
// immediate are needed as they are there. Beyond those:
//
//   - A notification takes off the pending changes of exactly the versions that it lists. Else R's Delete is taken for
//     published because R's Set is, which a flush had in its snapshot before the Delete.
//   - A flush takes off the pending changes of writes that were acknowledged when it began. Else one begins, the write
//     commits, the flush commits without having seen it, and nobody is bound to flush the log row.
//   - A lost listener takes no pending changes off. Else the others wait for L's Set in vain.
//   - A flush that failed takes no pending changes off.
//   - A flush beside another does nothing and takes no pending changes off. Else the other one fails, or had its snapshot before.
//     Nor does it skip the rows that the other has locked, and take their pending changes off. (It may if it takes off the
//     pending changes of what it drained itself.)
//   - What a flush deletes it has published: never more, as where it deletes in a second transaction whatever there is, and
//     never before, as where its deletes commit first.
//   - There are pulses, and they drain everybody's rows. Else those of a dead writer stay, and of one that had given up.
//   - A pulse that can't flush forgets. Else what is stale stays.
//   - The log row commits with the write. Before it, the row is drained and published, and then comes the write; after it,
//     the writer dies in between.
//   - A row that nobody keeps is not stored by a fetch, and is silent only in the place of another of its kind. Else the entry of what was
//     there before stays.
//   - Of several versions of a key a notification names the newest first, and the others' entries go. Else the entry of
//     an older one stays.
package window
