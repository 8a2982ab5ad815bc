//go:build tools

// Package etcd keeps etcd, whose module is itself a program, in go.mod.
package etcd

import _ "go.etcd.io/etcd/server/v3"
