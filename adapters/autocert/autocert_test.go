package autocert_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/acme/autocert"

	pgautocert "github.com/pgcache/go/adapters/autocert"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/encrypt"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// What autocert's TestDirCache asks of a Cache, for keys of every kind.
func TestCache(t *testing.T) {
	t.Parallel()
	cache := pgautocert.New(pgcachetest.New(t, pgcache.Options{}))
	ctx := t.Context()
	for _, key := range []string{"dummy", "acme_account+key", "example.com+rsa", "", "a/b:c", "\xff\x00", string(bytes.Repeat([]byte("k"), 4000))} {
		if _, err := cache.Get(ctx, key); !errors.Is(err, autocert.ErrCacheMiss) {
			t.Errorf("get: %v; want ErrCacheMiss", err)
		}
		b1 := []byte{1}
		if err := cache.Put(ctx, key, b1); err != nil {
			t.Fatalf("put: %v", err)
		}
		b2, err := cache.Get(ctx, key)
		if err != nil {
			t.Fatalf("get: %v", err)
		}
		if !bytes.Equal(b1, b2) {
			t.Errorf("b1 = %v; want %v", b1, b2)
		}
		if err := cache.Delete(ctx, key); err != nil {
			t.Fatalf("delete: %v", err)
		}
		if _, err := cache.Get(ctx, key); !errors.Is(err, autocert.ErrCacheMiss) {
			t.Errorf("get: %v; want ErrCacheMiss", err)
		}
		if err := cache.Delete(ctx, key); err != nil {
			t.Errorf("delete again: %v", err)
		}
	}
}

// A Manager in another process serves the certificate without asking the authority, which here can't be reached.
func TestManager(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	secret, err := encrypt.New(codec.Raw{}, encrypt.Key{ID: "1", Secret: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{Durable: true})
	if err := pgautocert.New(nodes[0].Cache, pgcache.WithCodec(secret)).Put(ctx, "example.com", certificate(t, "example.com")); err != nil {
		t.Fatal(err)
	}
	m := autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		HostPolicy: autocert.HostWhitelist("example.com"),
		Cache:      pgautocert.New(nodes[1].Cache, pgcache.WithCodec(secret)),
	}
	got, err := m.GetCertificate(&tls.ClientHelloInfo{
		ServerName:        "example.com",
		CipherSuites:      []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		SupportedVersions: []uint16{tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Leaf.VerifyHostname("example.com"); err != nil {
		t.Error(err)
	}
}

// An error of the database is no miss: the Manager must not ask for a new certificate.
func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	cache := pgautocert.New(node.Cache)
	node.Faults.Fail(nil)
	defer node.Faults.Mend()
	if _, err := cache.Get(context.Background(), "example.com"); err == nil || errors.Is(err, autocert.ErrCacheMiss) {
		t.Errorf("get: %v", err)
	}
}

// certificate is what the Manager stores: the private key, and the chain.
func certificate(t *testing.T, host string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, block := range []*pem.Block{{Type: "EC PRIVATE KEY", Bytes: private}, {Type: "CERTIFICATE", Bytes: der}} {
		if err := pem.Encode(&b, block); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}
