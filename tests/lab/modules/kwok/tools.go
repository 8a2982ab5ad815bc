//go:build tools

// Package kwok keeps the program that plays the node in go.mod.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
