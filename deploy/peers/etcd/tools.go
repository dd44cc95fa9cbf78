//go:build tools

// Package etcd pins the etcd server and etcdctl that the tests compare config-center with.
// Nothing here is compiled into a product: etcd.sh builds the two programs from these imports.
package etcd

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/etcdutl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
