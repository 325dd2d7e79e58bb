# Runs one case: its name, then the command that passes when the case does. One that fails runs once more. One that
# passes and says why this kernel cannot show it has shown nothing.
case_() {
    local name=$1 verdict=ok start=$EPOCHREALTIME why=
    shift
    if ! "$@" >/tmp/case.log 2>&1 </dev/null; then
        cat /tmp/case.log
        verdict=unsteady
        if ! "$@" >/tmp/case.log 2>&1 </dev/null; then
            cat /tmp/case.log
            verdict=failed
        fi
    elif why=$(grep -o 'cannot: .*' /tmp/case.log); then
        verdict=cannot
    fi
    # What a test says that it has shown.
    grep '^shown: ' /tmp/case.log
    local tenths=$(( (${EPOCHREALTIME/./} - ${start/./}) / 100000 ))
    echo "xtask-case $verdict $((tenths / 10)).$((tenths % 10)) $name ${why#cannot: }"
}

# One test of a binary. libtest is content when no test has the name, hence the second look.
libtest() {
    timeout -k 5 "$limit" "$1" --ignored --exact "$2" --test-threads=1 &&
        grep -q '^test result: ok. 1 passed' /tmp/case.log
}
