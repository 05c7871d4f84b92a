#!/usr/bin/env bash
# A rolling upgrade from an older version to this one under load, back, and again, with the feature level raised last.
# What must hold is in tests/it/rolling.rs; figures are printed.
#
#   deploy/test-upgrade.sh                        from the newest tag before HEAD
#   OLD_REF=v0.1.0 deploy/test-upgrade.sh         from this tag or commit
#   QUORATE_OLD_BINARY=FILE deploy/test-upgrade.sh   from a program that is there
#
# PROFILE=dev builds without optimisations (then a gap of 3 s is allowed, instead of 500 ms); OLD_TARGET is where the old
# version is built. Ends with 1 when anything fails, 2 when there is nothing to upgrade from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=${PROFILE:-release}

if [[ -z ${QUORATE_OLD_BINARY:-} ]]; then
    ref=${OLD_REF:-$(git describe --tags --abbrev=0 HEAD^ 2>/dev/null || true)}
    [[ -n $ref ]] || {
        echo "test-upgrade.sh: there is no tag before HEAD to upgrade from; name a version with OLD_REF=TAG_OR_COMMIT" >&2
        exit 2
    }
    commit=$(git rev-parse --verify --quiet "$ref^{commit}") || {
        echo "test-upgrade.sh: $ref is no tag or commit of this repository; \`git tag\` lists the tags" >&2
        exit 2
    }
    target=$(realpath -m "${OLD_TARGET:-target/older}")
    source=$(mktemp -d)
    trap 'git worktree remove --force "$source" >/dev/null 2>&1 || rm -rf "$source"' EXIT
    git worktree add --quiet --force --detach "$source" "$commit"
    echo "building $ref (${commit:0:7})" >&2
    (cd "$source" && cargo build --workspace --bin quorate --profile "$profile" --target-dir "$target" ${BUILD_OPTIONS:-})
    folder=$profile
    [[ $profile != dev ]] || folder=debug
    export QUORATE_OLD_BINARY=$target/$folder/quorate
    echo "upgrade from $ref (${commit:0:7}) to $(git rev-parse --short HEAD), profile $profile, $(nproc) cores"
fi
cargo nextest run --workspace --cargo-profile "$profile" --profile prove --no-capture --color never \
    ${BUILD_OPTIONS:-} -E 'package(quorate-tests) & test(an_older_build_is_upgraded)'
