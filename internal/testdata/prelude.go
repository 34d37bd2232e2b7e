// Package docs holds what the fragments of the documentation take for granted. A fragment that is no whole file is
// compiled beside this one: statements as the body of a function that returns an error. What a fragment declares
// itself is left out here.
package docs

var (
	ctx   context.Context
	db    *sql.DB
	dsn   string
	tx    *sql.Tx
	err   error
	cache *pgcache.Cache
	opts  pgcache.Options
)

type User struct {
	ID    int64
	Name  string
	Email string
}

var users *pgcache.Typed[User]

func loadUser(ctx context.Context, db *sql.DB, id string) (User, error) { return User{}, nil }

var (
	client, day, host, id, item string
	errTooMany, errFull         error
	mux                         *http.ServeMux
)

type Basket struct{ Items []string }

var baskets *pgcache.Typed[Basket]

type Profile struct{ Name string }

type Profiles struct{}

func NewProfiles(*pgcache.Cache) *Profiles { return nil }

func (*Profiles) Rename(ctx context.Context, id, name string) error { return nil }

func (*Profiles) Name(ctx context.Context, id string) string { return "" }

func warm(t *testing.T, p *Profiles, id string) {}
