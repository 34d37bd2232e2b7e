package coherence

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMutants takes the rules of the tracker away, one at a time, and sees to it that a test fails without it: that each
// rule is needed, and that the tests would notice. The code under test has no hooks for that: the mutants are compiled
// with go test -overlay. It takes minutes, so it only runs when asked for:
//
//	PGCACHE_MUTANTS=1 go test -v -timeout 1h -run TestMutants ./internal/coherence
func TestMutants(t *testing.T) {
	if os.Getenv("PGCACHE_MUTANTS") == "" {
		t.Skip("set PGCACHE_MUTANTS=1 to run the mutants; they take minutes")
	}
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	checkMutants(t)
	schedule := regexp.MustCompile(`schedule (\d+): (.*)`)
	failed := regexp.MustCompile(`--- FAIL: (\S+)`)
	for _, m := range mutants {
		t.Run(m.rule, func(t *testing.T) {
			file := filepath.Join(folder, m.file)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			mutant, overlay := filepath.Join(t.TempDir(), m.file), filepath.Join(t.TempDir(), "overlay.json")
			if err := os.WriteFile(mutant, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			mapping, err := json.Marshal(map[string]any{"Replace": map[string]string{file: mutant}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(overlay, mapping, 0o600); err != nil {
				t.Fatal(err)
			}
			tests := m.tests
			if tests == "" {
				tests = "^TestSimulate$"
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay", overlay, "-run", tests, ".").CombinedOutput()
			switch found := schedule.FindStringSubmatch(string(out)); {
			case strings.Contains(string(out), "[build failed]"):
				t.Fatalf("the mutant does not compile:\n%s", out)
			case err == nil && m.spare == "":
				t.Error("survived: no test needs this rule")
			case err == nil:
				t.Logf("survived, as it should, because %s", m.spare)
			case m.spare != "":
				t.Errorf("caught, so it is not true that %s\n%s", m.spare, out)
			case found != nil:
				t.Logf("caught by schedule %s: %s", found[1], found[2])
			default:
				t.Logf("caught by %v", failed.FindAllString(string(out), -1))
			}
		})
	}
}

// TestMutantsMatch runs with every test: a change of the code that a mutant no longer fits would take its rule out of the proof
// and nobody would see it.
func TestMutantsMatch(t *testing.T) {
	t.Parallel()
	checkMutants(t)
}

// checkMutants fails unless each mutant has exactly one place to change, and changes it.
func checkMutants(t *testing.T) {
	t.Helper()
	rules := map[string]bool{}
	for _, m := range mutants {
		if rules[m.rule] {
			t.Errorf("two mutants are called %q", m.rule)
		}
		rules[m.rule] = true
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Errorf("%s: %v", m.rule, err)
		}
		if n := strings.Count(string(text), m.old); n != 1 || m.old == m.new {
			t.Errorf("%s: %s has %d times, not once, what the mutant replaces:\n%s", m.rule, m.file, n, m.old)
		}
	}
}

// mutants are the rules, and what takes them away.
var mutants = []struct {
	rule     string
	file     string
	old, new string
	tests    string // which must fail: TestSimulate unless it says otherwise
	spare    string // why the rule may be missing and no promise is broken
}{
	{rule: "an invalidation evicts another version", file: "tracker.go", old: "t.evictOther(k, version)", new: "t.local.Get(k)"},
	{rule: "an invalidation kills reads", file: "tracker.go", old: "\ts.kill(k, nil)\n"},
	{rule: "an invalidation by another kills writes", file: "tracker.go", old: "if w.version != version {", new: "if false {"},
	{rule: "what is killed is not stored", file: "tracker.go", old: "\t\tf.dead = true\n"},
	{rule: "what is killed is not joined", file: "tracker.go", old: "\tdelete(s.reads, k)\n"},
	{rule: "older reads are killed too", file: "tracker.go", old: "f != nil; f = f.older {", new: "f != nil; f = nil {"},
	{rule: "versions are compared for being the same", file: "tracker.go", old: "e.Version == version {", new: "e.Version >= version {"},
	{rule: "what is not understood forgets everything", file: "tracker.go", old: "\tcase err != nil:\n\t\tt.Forget()\n", new: "\tcase err != nil:\n"},
	{rule: "Forget begins a new epoch", file: "trust.go", old: "CompareAndSwap(e, newEpoch())", new: "CompareAndSwap(e, e)"},
	{rule: "Down ends the epoch", file: "trust.go", old: "e := t.epoch.Swap(0)", new: "e := t.epoch.Load()"},
	{rule: "TrustListener begins a new epoch after Down", file: "trust.go", old: "== 0 {\n\t\tt.epoch.Store(newEpoch())", new: "== 0 {\n\t\tt.epoch.Store(1)"},
	{
		rule: "epochs are unique in the process", file: "trust.go",
		old: "== 0 {\n\t\tt.epoch.Store(newEpoch())", new: "== 0 {\n\t\tt.epoch.Store(1 + uint32(t.Forgets.Load()))", tests: "^TestSharedLocalCache$",
	},
	{rule: "a hit is of this epoch", file: "tracker.go", old: "e.Epoch != t.epoch.Load() || now >= e.Deadline", new: "now >= e.Deadline"},
	{rule: "a hit is before its deadline", file: "tracker.go", old: " || now >= e.Deadline"},
	{rule: "a hit is within the trust", file: "tracker.go", old: "\tif now >= t.trusted.Load() {", new: "\tif now < 0 {"},
	{
		rule: "trust is asked for before the entry", file: "tracker.go", tests: "^TestHitThatTakesLong$",
		old: "\tif now >= t.trusted.Load() {\n\t\treturn nil\n\t}\n\te := t.local.Get(k)\n", new: "\te := t.local.Get(k)\n\tif now >= t.trusted.Load() {\n\t\treturn nil\n\t}\n",
	},
	{rule: "a hit counts as use", file: "tracker.go", old: "\te.Use()\n", tests: "^TestHooks$"},
	{rule: "current is within the trust", file: "trust.go", old: " && mono.Now() < t.trusted.Load()\n}\n\n// Close", new: "\n}\n\n// Close"},
	{rule: "rows of another server are not kept", file: "tracker.go", old: "(own != 0 && server != own)", new: "own < 0", tests: "^TestOtherServer$"},
	{rule: "an entry is no older than maxAge", file: "tracker.go", old: "remaining = min(remaining, time.Duration(t.maxAge))", new: "_ = remaining", tests: "^TestDeadline$"},
	{rule: "a deadline does not overflow", file: "tracker.go", old: "remaining < 0 || until >= sent", new: "true", tests: "^TestDeadline$"},

	{rule: "no join across an epoch", file: "read.go", old: "newest.epoch == epoch && "},
	{rule: "no join while not live", file: "read.go", old: "newest != nil && live && ", new: "newest != nil && "},
	{rule: "no join of what another read may have overtaken", file: "read.go", old: "\t\t\tother.closed = true\n"},
	{rule: "no join of a slow read", file: "read.go", old: " && now-newest.began < joinable", tests: "^TestSlowReads$"},
	{rule: "nothing expired for late callers", file: "read.go", old: "mono.Now()-f.began > int64(f.row.Remaining)", new: "false", tests: "^TestSlowReads$"},
	{rule: "a read begun while not live is not stored", file: "read.go", old: "dead: !live, "},
	{rule: "a read that cannot be killed is not stored", file: "read.go", old: "s.reads[k] != nil || s.txs[k] != nil || !t.current", new: "s.txs[k] != nil || !t.current"},
	{rule: "older reads stay to be killed", file: "read.go", old: "f.older, s.reads[k] = newest, f", new: "s.reads[k] = f"},
	{rule: "a read evicts another version", file: "read.go", old: "\t\tt.evictOther(f.key, version)\n"},
	{rule: "a read of another version kills writes", file: "read.go", old: "if w.version != version {", new: "if false {"},
	{rule: "a read that another may have overtaken is not stored", file: "read.go", old: "!f.torn && "},
	{rule: "reads that saw the same may be stored", file: "read.go", old: "f.met && f.seen != version", new: "f.met", tests: "^TestHotKeyIsKept$"},
	{
		rule: "a read is stored in its own epoch only", file: "read.go", old: " && t.current(f.epoch) {", new: " {",
		spare: "no entry of another epoch is ever served: it would only take room",
	},
	{rule: "a read that has ended is not joined", file: "read.go", old: "\ts.end(f)\n"},
	{rule: "the end of a read leaves the older ones", file: "read.go", old: "s.reads[f.key] = f.older", new: "delete(s.reads, f.key)"},
	{rule: "the end of an older read takes it away", file: "read.go", old: "\t\t\tother.older = f.older\n"},
	{rule: "Replace replaces what it was made of", file: "read.go", old: "t.local.Get(k) == old && "},
	{rule: "Replace replaces one's own", file: "read.go", old: " && t.current(old.Epoch) && s.txs[k] == nil {", new: " && s.txs[k] == nil {", tests: "^TestSharedLocalCache$"},

	{rule: "of two writes at once the first is not stored", file: "write.go", old: "other.dead, w.dead = true, true", new: "w.dead = other != nil"},
	{rule: "of two writes at once the second is not stored", file: "write.go", old: "other.dead, w.dead = true, true", new: "other.dead = true"},
	{
		rule: "a write kills reads when it begins", file: "write.go", old: "\ts.kill(k, load)\n",
		spare: "a read begun before may store while the write is under way: its end evicts, and kills those that have not ended",
	},
	{rule: "a write kills reads when it ends", file: "write.go", old: "\ts.kill(w.key, w.load)\n"},
	{rule: "a write that is not stored evicts", file: "write.go", old: "\t\tt.local.Delete(w.key)\n"},
	{rule: "a write is stored in its own epoch only", file: "write.go", old: " && t.current(w.epoch) {", new: " {"},

	{rule: "a killed load is not joined", file: "tracker.go", old: "l != nil && l != keep {", new: "l != nil && l == nil {", tests: "^TestOvertakenLoad$"},
	{rule: "a load's own store does not kill it", file: "tracker.go", old: "l != nil && l != keep {", new: "l != nil {", tests: "^TestOwnStoreKeepsTheLoad$"},
	{rule: "a transaction's write evicts the entry", file: "tx.go", old: "\tt.local.Delete(k)\n"},
	{rule: "nothing is kept of a key that a transaction writes", file: "tracker.go", old: " || t.stripe(k).txs[k] != nil"},
	{rule: "no read is joined while a transaction writes", file: "read.go", old: " && s.txs[k] == nil, mono.Now()", new: ", mono.Now()"},
	{rule: "the end of a transaction kills reads", file: "tx.go", old: "\ts.kill(w.key, nil)\n"},
	{rule: "the end of a transaction kills writes", file: "tx.go", old: "\t\tother.dead = true\n", new: "\t\t_ = other\n", tests: "^TestTxWriteEnds$"},
	{rule: "a hidden key finds what it stands for", file: "tracker.go", old: "\tt.hidden.add(k)\n"},
	{rule: "an unknown secret forgets everything", file: "tracker.go", old: "t.hidden.secret.Load() == nil {\n\t\tt.Forget()", new: "t.hidden.secret.Load() == nil {", tests: "^TestHiddenSecret$"},
	{rule: "another secret forgets everything", file: "hidden.go", old: "\tt.Forget()\n}", new: "}", tests: "^TestHidden"},
	{rule: "a message that comes while the secret changes forgets everything", file: "tracker.go", old: "t.hidden.switching.Load()", new: "false", tests: "^TestHiddenWhileItChanges$"},
	{rule: "keys that are needed stay known", file: "hidden.go", old: " && t.local.Get(k) == nil", tests: "^TestHiddenBounds$"},
	{rule: "reads that are under way stay known", file: "hidden.go", old: "s.reads[k] == nil && ", tests: "^TestHiddenBounds$"},
	{rule: "a run that nobody waits for is not joined", file: "load.go", old: "\tif r.waiters == 0 && !r.kept {", new: "\tif false {", tests: "^TestLastLeaverEndsTheRun$"},
	{rule: "the last leaver ends the run", file: "load.go", old: "r.cancel(context.Canceled)", new: "_ = context.Canceled", tests: "^TestLastLeaverEndsTheRun$"},
	{rule: "a caller knows the steps that it missed", file: "load.go", old: "return r.steps, true", new: "return 0, true", tests: "^TestJoin$"},

	{rule: "a removed tag's entries go", file: "groups.go", old: "\tfor k := range keys {\n\t\ts := t.stripe(k)\n\t\ts.mu.Lock()\n\t\tt.local.Delete(k)\n", new: "\tfor k := range keys {\n\t\ts := t.stripe(k)\n\t\ts.mu.Lock()\n"},
	{rule: "a removed prefix' entries go", file: "groups.go", old: "\t\t\ts := t.stripe(k)\n\t\t\ts.mu.Lock()\n\t\t\tt.local.Delete(k)\n", new: "\t\t\ts := t.stripe(k)\n\t\t\ts.mu.Lock()\n"},
	{rule: "what began before a tag was removed is not kept", file: "groups.go", old: "len(tags) > 0 && g.tagRemovals.Load() != applied.tags", new: "false"},
	{rule: "what began before a prefix was removed is not kept", file: "groups.go", old: "g.prefixRemovals.Load() != applied.prefixes", new: "false"},
	{rule: "the removal of a tag is counted", file: "groups.go", old: "\tg.tagRemovals.Add(1)\n"},
	{rule: "the removal of a prefix is counted", file: "groups.go", old: "\tt.groups.prefixRemovals.Add(1)\n"},
	{rule: "a tagged entry is indexed", file: "groups.go", old: "\t\t\ttagged[k] = struct{}{}\n"},
	{rule: "nothing is kept of what an open transaction removes", file: "groups.go", old: "\t\tif tx.holds(k, tags) {", new: "\t\tif tx == nil {"},
	{rule: "untagged entries wait for open removals too", file: "groups.go", old: "if len(tags) == 0 && g.open.Load() == 0 {", new: "if len(tags) == 0 {"},
	{rule: "a transaction's removal is applied when it begins", file: "groups.go", old: "\tg.mu.Unlock()\n\ttx.apply()\n", new: "\tg.mu.Unlock()\n"},
	{rule: "a transaction's removal is applied when it ends", file: "groups.go", old: "\ttx.apply()\n\ttx.t.groups.end(", new: "\ttx.t.groups.end("},
	{rule: "a commit's notification ends its removal", file: "groups.go", old: "slices.Contains(tx.ids, g.ID)", new: "false", tests: "^TestTxRemovalEnds$"},
	{rule: "a notification ends only its own removal", file: "groups.go", old: "slices.Contains(tx.ids, g.ID)", new: "true"},
	{rule: "no read is joined across a removal", file: "read.go", old: " && newest.applied == applied", new: ""},
	{rule: "no read is joined while a transaction removes", file: "read.go", old: " && t.groups.open.Load() == 0 {", new: " {"},
	{rule: "a read notes the removals before it", file: "read.go", old: "began: now, applied: applied,", new: "began: now,", tests: "^TestSimulate$|^TestGroupsAreKept$"},
	{rule: "a read alone notes the removals before it", file: "read.go", old: "applied: t.groups.applied(), done", new: "done", tests: "^TestSimulate$|^TestGroupsAreKept$"},
	{rule: "a write notes the removals before it", file: "write.go", old: "applied: t.groups.applied(), load", new: "load", tests: "^TestSimulate$|^TestGroupsAreKept$"},
	{rule: "a removal waits for who keeps at the moment", file: "groups.go", old: "\t\tt.stripes[i].wait()\n", new: "\t\t_ = i\n", tests: "^TestPrefixWaits$"},
	{rule: "without Keys a prefix is everything", file: "groups.go", old: "\tif !ok {\n\t\tt.Forget()\n", new: "\tif !ok {\n", tests: "^TestPrefixWithoutKeys$"},
	{rule: "a hidden prefix is everything", file: "groups.go", old: "\t\tt.Forget() // a prefix says", new: "\t\t// a prefix says", tests: "^TestHiddenGroups$"},
	{rule: "another secret forgets tags", file: "hidden.go", old: "\tg.byTag, g.size = nil, 0", new: "\tg.size = 0", tests: "^TestHiddenGroups$"},
	{rule: "what is indexed is bounded", file: "groups.go", old: "\t\t\tg.due.Store(true)\n", tests: "^TestTagIndexIsBounded$"},
	{rule: "what is kept stays indexed", file: "groups.go", old: "\t\t\tif t.local.Get(k) == nil {\n\t\t\t\tg.drop(name, k)", new: "\t\t\tif true {\n\t\t\t\tg.drop(name, k)", tests: "^TestTagIndexIsBounded$"},

	{rule: "a transaction's write is ended by its own notification", file: "tracker.go", old: "\t\ts.endTx(k, versions)\n", new: "\t\ts.endTx(k, nil)\n", tests: "^TestTxWriteEnds$"},
	{rule: "a notification ends no other transaction's write", file: "tracker.go", old: "\t\ts.endTx(k, versions)\n", new: "\t\tfor v := range s.txs[k] {\n\t\t\ts.endTx(k, []int64{v})\n\t\t}\n"},
	{rule: "the end of a write leaves other transactions' writes", file: "tx.go", old: "\ts.endTx(w.key, []int64{w.version})\n", new: "\tfor v := range s.txs[w.key] {\n\t\ts.endTx(w.key, []int64{v})\n\t}\n"},
	{rule: "a read alone keeps nothing that a transaction writes", file: "read.go", old: "s.reads[k] != nil || s.txs[k] != nil || !t.current", new: "s.reads[k] != nil || !t.current", spare: "what is kept is looked at again when the read ends, and the end of the transaction kills it"},
	{rule: "Replace keeps nothing that a transaction writes", file: "read.go", old: "t.current(old.Epoch) && s.txs[k] == nil {", new: "t.current(old.Epoch) {", spare: "the entry to be replaced has gone when the transaction wrote, and none is kept until it has ended"},
	{rule: "the end of a transaction wakes who waits", file: "tx.go", old: "\t\twatch.wake()\n", new: "\t\t_ = watch\n", tests: "^TestTxWriteEnds$"},

	{rule: "a load answers whom its proof came after", file: "load.go", old: "return l.out.Since > steps || l.began >= arrived", new: "return true", tests: "^TestAnswers$"},
	{rule: "a step that had begun before proves nothing", file: "load.go", old: "return l.out.Since > steps || l.began >= arrived", new: "return l.out.Since >= steps || l.began >= arrived", tests: "^TestAnswers$"},
	{rule: "a load answers who came before it", file: "load.go", old: "return l.out.Since > steps || l.began >= arrived", new: "return l.out.Since > steps", tests: "^TestAnswers$"},
	{rule: "an offer answers whom its look came after", file: "load.go", old: "out != nil && (out.Since > steps || l.began >= arrived)", new: "out != nil", tests: "^TestAnswers$"},
	{rule: "an older look does not replace a newer one", file: "load.go", old: "before != nil && before.Since > out.Since || ", tests: "^TestAnswers$"},
	{rule: "no load is joined while a transaction writes", file: "load.go", old: "s.txs[k] == nil && t.groups.open", new: "t.groups.open", tests: "^TestJoinInTransactions$"},
	{rule: "no load is joined while a transaction removes", file: "load.go", old: "s.txs[k] == nil && t.groups.open.Load() == 0", new: "s.txs[k] == nil", tests: "^TestJoinInTransactions$"},
	{rule: "a load that began after a caller came is joined", file: "load.go", old: "t.groups.open.Load() == 0 || l.began >= arrived)", new: "t.groups.open.Load() == 0)", tests: "^TestJoinInTransactions$"},
	{rule: "a stale entry is of this epoch", file: "tracker.go", old: "e.Epoch != t.epoch.Load() || now < e.Deadline", new: "now < e.Deadline", tests: "^TestStaleEntry$"},
	{rule: "a stale entry is within the trust", file: "tracker.go", old: "t.trusted.Load() <= now", new: "now < 0", tests: "^TestStaleEntry$"},
}
