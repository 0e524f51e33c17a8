# What the rows share: starting and stopping servers, and arithmetic. Read by benches/run.

# ---- processes: each is ended by its own id

declare -A pids=()
started=0

# start NAME COMMAND…: in the background, its output in $work/NAME.out and .err
start() {
  local name=$1
  shift
  "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
  pids[$name]=$!
}

# stop NAME [SIGNAL]: and waits for its end
stop() {
  local pid=${pids[$1]:-}
  [[ -n $pid ]] || return 0
  kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  unset "pids[$1]"
}

clean_up() {
  local name
  for name in "${!pids[@]}"; do stop "$name" KILL; done
  if [[ -n ${postfix_etc:-} ]]; then
    postfix -c "$postfix_etc" abort >/dev/null 2>&1 || true
  fi
  rm -rf "$work"
}

# A port that nobody listens on, into the variable that is named.
free_port() {
  local free_port
  while :; do
    free_port=$((20000 + started + RANDOM % 100 * 100))
    started=$((started + 1))
    (exec 3<>"/dev/tcp/127.0.0.1/$free_port") 2>/dev/null || break
  done
  printf -v "$1" %s "$free_port"
}

# listens PORT: waits until somebody does
listens() {
  local try
  for try in {1..500}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
    sleep 0.02
  done
  echo "nobody listens on port $1" >&2
  return 1
}

# ---- mail servers

# sink NAME PORT [FLAG…]: an smtp-sink that counts; its counter is in $work/NAME.out
sink() {
  local name=$1 port=$2
  shift 2
  local user=()
  ((EUID != 0)) || user=(-u nobody)
  start "$name" smtp-sink "${user[@]}" -c -m 2000 "$@" "127.0.0.1:$port" 1000
  listens "$port"
}

# A server that takes each message and is about to answer: what is queued for it waits, no connection
# fails, and nothing else is done. 590 s are within the 600 s that RFC 5321 wants a sender to wait.
holding_sink() { sink "$1" "$2" -W .:590 -t 1000; }

# sink_counts NAME COUNT SECONDS: waits for so many messages; prints as bench-sink does
sink_counts() { "$programs/bench-sink" "$work/$1.out" "$2" "$3"; }

# postfix_begins PORT SINK_PORT [HOLD]: a Postfix with its usual, safe settings, which passes everything
# on to the sink, or with HOLD keeps everything in its hold queue. Three settings are in its favour: it
# slows down no client (in_flow_delay), looks up no names, and has as many connections to the sink as
# we have.
postfix_begins() {
  local root=$work/postfix
  mkdir -p "$root/etc" "$root/state" "$root/spool"
  chmod 755 "$work" "$root"
  chown postfix "$root/state"
  cat >"$root/etc/main.cf" <<EOF
compatibility_level = 3.6
queue_directory = $root/spool
data_directory = $root/state
maillog_file = $root/mail.log
maillog_file_prefixes = $root
myhostname = mail.example.com
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
disable_dns_lookups = yes
relayhost = [127.0.0.1]:$2
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = ${3:+check_client_access static:HOLD,} permit_mynetworks, reject
in_flow_delay = 0
default_destination_concurrency_limit = $connections
EOF
  cat >"$root/etc/master.cf" <<EOF
127.0.0.1:$1 inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
EOF
  postfix_etc=$root/etc
  postfix -c "$root/etc" start >"$work/postfix.out" 2>&1
  listens "$1"
}

postfix_ends() {
  postfix -c "$postfix_etc" abort >/dev/null 2>&1 || true
  while postfix -c "$postfix_etc" status >/dev/null 2>&1; do sleep 0.05; done
  postfix_etc=
  rm -rf "$work/postfix"
}

# smtp_source PORT COUNT SESSIONS: over connections that are kept, which is its fastest way
smtp_source() {
  smtp-source -d -s "$3" -m "$2" -l 4096 -M client.example.com -f noreply@example.com \
    -t oncall@example.com "127.0.0.1:$1"
}

# ---- our server

# providers FIRST COUNT PORT: manifests of pFIRST and so on, all with their server at this port
providers() {
  local n
  for ((n = $1; n < $1 + $2; n++)); do
    cat <<EOF
---
apiVersion: breakglass.t-caas.telekom.com/v1alpha1
kind: MailProvider
metadata: {name: p$n}
spec:
  smtp: {host: 127.0.0.1, port: $3}
  sender: {address: noreply@example.com, name: Breakglass}
  retry: {queueSize: 10000}
EOF
  done
}

# serve NAME MANIFESTS [COMMAND…]: our server on the folder $work/NAME, and waits until it is ready. Its
# address is in ${address[NAME]}; COMMAND… is put before it.
declare -A address=()
serve() {
  local name=$1 port
  # In a folder of their own, because that is watched, and others write into $work.
  mkdir -p "$work/$name.providers"
  printf '%s\n' "$2" >"$work/$name.providers/all.yaml"
  shift 2
  free_port port
  address[$name]=127.0.0.1:$port
  start "$name" "$@" "$server" serve --providers "$work/$name.providers" --data-dir "$work/$name" \
    --listen "127.0.0.1:$port" --log-level warn --shutdown-grace 1s
  # It listens before it opens the store and answers after, so this asks once and waits.
  until curl -sf --max-time 600 -o "$work/curl.out" "http://127.0.0.1:$port/readyz"; do
    kill -0 "${pids[$name]}" || { cat "$work/$name.err" >&2; return 1; }
    sleep 0.01
  done
}

# unserve NAME [SIGNAL]: stops it and removes its folder
unserve() {
  stop "$@"
  rm -rf "${work:?}/$1" "$work/$1".*
}

# post NAME ARGUMENT…: bench-load against it; fails loudly when a post was refused
post() {
  local name=$1 line
  shift
  line=$("$programs/bench-load" "${address[$name]}" "$@")
  [[ $(field refused "$line") == 0 ]] || echo "NOTE posts were refused: $line" >&2
  echo "$line"
}

# depth NAME: how many jobs it holds
depth() { curl -sf "http://${address[$1]}/queue" | sed 's/.*"depth":\([0-9]*\),"capacity.*/\1/;s/^{"depth":\([0-9]*\).*/\1/'; }

# drained NAME: waits until it holds none
drained() {
  until [[ $(depth "$1") == 0 ]]; do sleep 0.2; done
}

# Bytes that anybody wrote so far to the disk that everything happens on. What a process wrote does not
# tell: the kernel counts every page of a folio of which one is written.
disk_written() {
  echo $((512 * $(tr -s ' ' <"/sys/dev/block/$(stat -c %Hd:%Ld "$work")/stat" | cut -d' ' -f8)))
}

# of_process FILE NAME_OF_SERVER FIELD: a number of /proc/PID/FILE
of_process() { sed -n "s/^$3:[[:space:]]*\([0-9]*\).*/\1/p" "/proc/${pids[$2]}/$1"; }

# ---- figures

# field NAME LINE: the value of NAME=… in the line
field() { sed -n "s/^\(.* \)\?$1=\([^ ]*\).*/\2/p" <<<"$2"; }

# calc EXPRESSION [DECIMALS]
calc() { awk "BEGIN { printf \"%.${2:-3}f\", ($1) }"; }
median() { printf '%s\n' "$@" | sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

note() { echo "NOTE $*"; }

# figure ROW WHAT GOAL VALUE…: a figure of a row is the median of these, one of each round. GOAL is
# '>= 0.8' or '<= 10'.
declare -A worst=() worst_share=()
figures=()
figure() {
  local row=$1 what=$2 goal=$3 value share verdict=short
  shift 3
  value=$(median "$@")
  # At least 1 when it is reached.
  case $goal in
    '>= '*) share=$(calc "$value / ${goal#* }" 6) ;;
    '<= '*) share=$(calc "${goal#* } / ($value + 1e-9)" 6) ;;
  esac
  if [[ $(calc "$share >= 1" 0) == 1 ]]; then verdict=ok; fi
  note "row $row: $what: $value ($goal $verdict), of rounds $*"
  figures+=("$(printf '%-4s %-76s %10s %9s  %s' "$row" "$what" "$value" "$goal" "$verdict")")
  if [[ -z ${worst[$row]:-} || $(calc "$share < ${worst_share[$row]}" 0) == 1 ]]; then
    worst[$row]="$value ${goal#* } $verdict"
    worst_share[$row]=$share
  fi
}

# result ROW: the line of a row: of its figures the one that is furthest from its goal
result() { echo "RESULT $1 ${worst[$1]}"; }
