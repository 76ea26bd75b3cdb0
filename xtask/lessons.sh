# One script from nothing: base model, three fine-tunings, 36 lessons. Arguments: FLOPs of an arm, fine-tuning steps, seeds.
P=${PAWL:-$PWD/target/release/pawl}; F=${1:-6e12}; S=${2:-1500}; N=${3:-3}; L=/tmp/lessons-lab; O=${OUT:-/tmp}; J=$(nproc)
date +%T; lscpu | grep -i 'model name'; nproc
$P train tiny --depth 4 --flops 8e12 --set positions=rope --set norm=rms_norm --set biases=False --set seq_len=128 --set embed_lr=0.002 --set matrix_lr=0.002 --threads 8 --lab $L --json >$O/base.json 2>$O/base.err || { tail -5 $O/base.err; exit 1; }
id() { grep -o '"id":"[0-9a-f]*"' $1 | head -1 | cut -d'"' -f4; }
B=$(id $O/base.json); echo base $B; date +%T
sft() { $P sft $B --data env:$1 --difficulty $2 --slips 0.4 --count 40000 --steps $S --rows 32 --row-len $3 --set sft_lr=1 --set beta2=0.99 --threads $((J/3>0?J/3:1)) --lab $L --json >$O/sft-$1.json 2>$O/sft-$1.err; }
sft sort 4 44 & sft sum 2 40 & sft program 1 48 & wait; date +%T
C="--slips 0.4 --prompts 32 --group 8 --eval-problems 200 --eval-samples 16 --eval-every 25 --set beta2=0.95"
$P bench lessons "$(id $O/sft-sort.json) --env sort --difficulty 4 --max-tokens 18 --row-len 38 $C" "$(id $O/sft-sum.json) --env sum --difficulty 2 --max-tokens 12 --row-len 30 $C" "$(id $O/sft-program.json) --env program --difficulty 1 --max-tokens 16 --row-len 44 $C" --flops $F --seeds $N --jobs $J --reinforce "--set rl_lr=0.04 --set rl_loss=rloo" --imitate "" --lab $L >$O/table.txt 2>$O/arms.txt
cp $L/lessons.json $O/; for r in $L/runs/*/lesson.jsonl; do mkdir -p $O/runs/$(basename $(dirname $r)); cp $r $(dirname $r)/lesson.json $O/runs/$(basename $(dirname $r))/; done
date +%T; cat $O/table.txt; tail -3 $O/arms.txt
