# What one can do here.
check:
    cargo check --all-targets
fmt:
    cargo fmt
lint:
    cargo clippy --all-targets -- -D warnings
test:
    cargo test
# Rewrite what is generated: completions and schemas.
golden:
    GOLDEN=1 cargo test --test golden
fields:
    scripts/fields.py
# Release archives into dist/, and the krew manifest with their checksums: scripts/dist.py says what it needs.
dist *NAMES:
    scripts/dist.py {{NAMES}}
# A real mesh on this machine (root): up, its tests, down.
lab:
    tests/lab/up
lab-status:
    tests/lab/status
lab-test NAME="":
    cargo test --test lab -- --ignored --test-threads 1 --nocapture {{NAME}}
lab-down:
    tests/lab/down
bench:
    cargo bench
figures:
    scripts/figures.py
