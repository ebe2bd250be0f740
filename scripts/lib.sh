# Shared by the scripts beside it. Source it; it changes to the repository's root.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
INSTALLATION=$ROOT/dist/dunlin
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }

# need COMMAND PACKAGE WHY: install a Debian package if its command is missing and we may.
need() {
    command -v "$1" > /dev/null || install_package "$2" "$3"
}

install_package() {
    local as=()
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
            as=(sudo)
        else
            die "Missing: $2. This user may not install it; install the package $1, then try again."
        fi
    fi
    command -v apt-get > /dev/null || die "Missing: $2. Install it; on Debian it is package $1."
    say "Installing $1: $2"
    "${as[@]}" apt-get update -qq || true
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$1" > /dev/null \
        || die "Package $1 could not be installed; see above."
}

need_cargo() {
    command -v cargo > /dev/null \
        || die "Rust is missing. Install it from https://rustup.rs, then run this again."
}

need_compilers() {
    # ring and mimalloc contain C; etcd's messages are written in protocol buffers.
    need cc gcc 'a C compiler, for two dependencies'
    need protoc protobuf-compiler 'the compiler of protocol buffers, for the etcd client'
    has_protobuf_types || install_package libprotobuf-dev 'standard types of protocol buffers'
}

# They lie beside the compiler, wherever that is installed.
has_protobuf_types() {
    local at
    at=$(dirname "$(dirname "$(command -v protoc)")")
    [ -e "$at/include/google/protobuf/descriptor.proto" ]
}

build_release() { build release; }

# build PROFILE: the executable, by a profile of Cargo.toml.
build() {
    need_cargo
    need_compilers
    say "Building (the first time takes a few minutes)"
    cargo build --profile "$1" -p dunlin
}

join_by() { local IFS=$1; shift; echo "$*"; }

# lay_out DIRECTORY [PROFILE]: an installation as users unpack it. Configuration that is there is
# kept.
lay_out() {
    local to=$1 built=$TARGET/${2:-release}/dunlin file
    mkdir -p "$to"/{bin,etc,data,log,run}
    # A new file, not new content: a running node keeps the program it was started with.
    if ! cmp -s "$built" "$to/bin/dunlin"; then
        install -m 755 "$built" "$to/bin/.dunlin.new"
        mv -f "$to/bin/.dunlin.new" "$to/bin/dunlin"
    fi
    ln -sfn dunlin "$to/bin/emqx"
    ln -sfn dunlin "$to/bin/emqx_ctl"
    for file in etc/*; do
        [ -e "$file" ] || continue
        [ -e "$to/$file" ] || cp -r "$file" "$to/$file"
    done
    cp -f LICENSE README.md CHANGELOG.md "$to/"
}

# node_on NAME PORT: environment and program, as one command, of a node of the installation in
# $place/dunlin whose listeners are on PORT (TCP) and the four after it (TLS, WebSocket, WebSocket
# over TLS, REST). Names and ports of its own leave other nodes of the machine alone.
node_on() {
    echo "env EMQX_NODE__NAME=$1@127.0.0.1 EMQX_NODE__DATA_DIR=$place/data-$1" \
        "EMQX_LISTENERS__TCP__DEFAULT__BIND=127.0.0.1:$2" \
        "EMQX_LISTENERS__SSL__DEFAULT__BIND=127.0.0.1:$(($2 + 1))" \
        "EMQX_LISTENERS__WS__DEFAULT__BIND=127.0.0.1:$(($2 + 2))" \
        "EMQX_LISTENERS__WSS__DEFAULT__BIND=127.0.0.1:$(($2 + 3))" \
        "EMQX_DASHBOARD__LISTENERS__HTTP__BIND=127.0.0.1:$(($2 + 4))" \
        "$place/dunlin/bin/emqx"
}

# join_up NUMBER WITH: makes the node that `node NUMBER` names a member of WITH's cluster.
join_up() {
    local tries=0
    until $(node "$1") ctl cluster join "$2" > "$place/join" 2>&1; do
        ((++tries < 50)) || { cat "$place/join" "$place"/log* >&2; return 1; }
        sleep 0.2
    done
}

# The second node of the manual's single-host cluster, word for word.
second() {
    EMQX_NODE__NAME='emqx2@127.0.0.1' \
    EMQX_STATSD__SERVER='127.0.0.1:8124' \
    EMQX_LISTENERS__TCP__DEFAULT__BIND='0.0.0.0:1882' \
    EMQX_LISTENERS__SSL__DEFAULT__BIND='0.0.0.0:8882' \
    EMQX_LISTENERS__WS__DEFAULT__BIND='0.0.0.0:8082' \
    EMQX_LISTENERS__WSS__DEFAULT__BIND='0.0.0.0:8085' \
    EMQX_DASHBOARD__LISTENERS__HTTP__BIND='0.0.0.0:18082' \
    EMQX_NODE__DATA_DIR="./data2" \
        "$INSTALLATION/bin/emqx" "$@"
}

first() { EMQX_NODE__NAME='emqx@127.0.0.1' "$INSTALLATION/bin/emqx" "$@"; }
