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
dist:
    cargo build --profile dist
