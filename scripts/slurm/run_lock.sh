# shellcheck shell=bash
# Keeps two jobs (or two tasks of an array) out of one run folder. Sourced by train.sbatch.
#
# The lock is FOLDER/slurm.lock, a file that names the job. It only relies on two things: that link() and rename()
# within a folder are atomic, as they are on NFS, Lustre, GPFS, BeeGFS, CephFS and local disks (flock is not, on some of
# them), and that squeue tells whether a job is alive. It is not tied to a process, so a requeued job that is waiting
# still holds it; the lock of a job that squeue no longer knows, or reports as ended, is taken over.

readonly ended='^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY|BOOT_FAIL|DEADLINE|PREEMPTED|REVOKED)$'

lock_field() { grep -o " $2=[^ ]*" <<<" $1" | cut -d= -f2-; } # LINE NAME

# Prints "gone", Slurm's name of the job's state, or "unknown" and why.
job_state() { # JOB
    local said
    if said=$(squeue --noheader --states=all --jobs="$1" --format=%T 2>&1); then
        [[ -z $said || $said =~ $ended ]] && said=gone
    elif [[ $said == *'Invalid job id'* ]]; then
        said=gone
    else
        said="unknown ($said)"
    fi
    echo "$said"
}

# 0: locked. 1: another job has the lock, or that is unknown; prints which and what to do.
hold_run() { # FOLDER
    local lock=$1/slurm.lock own=$1/.slurm.lock.$SLURM_JOB_ID.$$ seconds=${SSPO_LOCK_SECONDS:-120} began=$SECONDS code=1
    mkdir -p "$1" || return 1
    echo "job=$SLURM_JOB_ID start=$((${SLURM_RESTART_COUNT:-0} + 1)) cluster=${SLURM_CLUSTER_NAME:-} user=$(id -un)" \
        "node=$(hostname) since=$(date +%FT%T)" >"$own" || return 1
    while ((code)); do
        if try_lock "$1" "$lock" "$own"; then
            code=0
        elif [[ -n $why ]] || ((SECONDS - began >= seconds)); then
            echo "the run folder $1 is in use: ${why:-still so after $seconds s ($waiting)}." >&2
            echo "Two jobs in it would overwrite each other's checkpoints. Wait for that job or cancel it; or give this one" \
                "a folder of its own: another data.seed (in an array each task has its own), or SSPO_RUN_DIR." >&2
            break
        else
            sleep 1
        fi
    done
    rm -f "$own"
    return $code
}

# 0: locked. 1: not locked; `why` is set if that is final, `waiting` if it may pass.
try_lock() { # FOLDER LOCK OWN
    local lock=$2 own=$3 line holder state
    why='' waiting=''
    # NFS may report a link that it did create as a failure: check the number of links.
    if ln -T "$own" "$lock" 2>/dev/null || [[ $(stat -c %h "$own") -gt 1 ]]; then
        return 0
    fi
    if ! line=$(cat "$lock" 2>/dev/null) || [[ -z $line ]]; then
        waiting="$lock cannot be made or read"
        return 1
    fi
    holder=$(lock_field "$line" job)
    if [[ $(lock_field "$line" cluster) != "${SLURM_CLUSTER_NAME:-}" || $(lock_field "$line" user) != "$(id -un)" ]]; then
        why="job $holder of another user or cluster holds $lock ($line); if that job is gone, remove the file"
        return 1
    fi
    if [[ $holder == "$SLURM_JOB_ID" ]]; then # an earlier start of this job, which was requeued
        mv -fT "$own" "$lock"
        return
    fi
    state=$(job_state "$holder")
    case $state in
        gone) take_over "$lock" "$own" "$line" ;;
        COMPLETING) waiting="job $holder is $state" && return 1 ;;
        *) why="job $holder has it and is $state ($lock: $line)" && return 1 ;;
    esac
}

# Take over the lock of a job that is gone. Only the creator of the marker may, and only the lock that was seen: two
# jobs may find the same lock at once.
take_over() { # LOCK OWN LINE
    waiting="$1.taking is there: another job takes the lock over; if none does, remove that file"
    ln -T "$2" "$1.taking" 2>/dev/null || return 1
    waiting="it changed hands"
    if [[ $(cat "$1" 2>/dev/null) == "$3" ]]; then
        echo "train.sbatch: the lock of a job that is gone is taken over: $3"
        mv -fT "$2" "$1" && waiting=''
    fi
    rm -f "$1.taking"
    [[ -z $waiting ]]
}

release_run() { # FOLDER
    if [[ $(lock_field "$(cat "$1/slurm.lock" 2>/dev/null)" job) == "$SLURM_JOB_ID" ]]; then
        rm -f "$1/slurm.lock"
    fi
}
