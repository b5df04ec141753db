# Two clients take turns through two files, as fast as they can: what one wrote, the other must see. Client A appends a
# line to "log", writes the turn's number to "turn.A" and waits for it in "turn.B"; client B waits for it in "turn.A",
# looks whether all lines of "log" are there, and writes it to "turn.B". The test names the folder of each round.
STALE_SECONDS=25

# FILE NUMBER: false, after telling what was seen and what is seen later, when the number does not come.
wait_for() {
  since=$(date +%s)
  while [ "$(cat "$1" 2>/dev/null)" != "$2" ]; do
    [ $(($(date +%s) - since)) -le $STALE_SECONDS ] && continue
    seen="$(cat "$1" 2>&1)"
    size=$(stat -c %s "$1" 2>&1)
    sleep 3
    echo "@stale $NAME waits for $2 in $1, has '$seen' of $size bytes, three seconds later '$(cat "$1" 2>&1)'"
    return 1
  done
}

turn() {
  if [ "$NAME" = A ]; then
    echo "line $1" >>log
    echo "$1" >turn.A
    wait_for turn.B "$1"
  else
    wait_for turn.A "$1" || return 1
    if [ "$(wc -l <log)" != "$1" ] || [ "$(tail -n1 log)" != "line $1" ]; then
      echo "@stale B in turn $1: log has $(wc -l <log) lines, the last is '$(tail -n1 log)'"
      return 1
    fi
    echo "$1" >turn.B
  fi
}

echo "@ready"
while read -r folder; do
  [ "$folder" = end ] && break
  cd "/mnt/$folder" || { echo "@stale $NAME cannot enter $folder"; continue; }
  i=1
  while [ $i -le "$TURNS" ] && turn $i; do i=$((i + 1)); done
  cd /mnt
  echo "@done $((i - 1))"
done
