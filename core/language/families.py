"""Which family a language belongs to, as far as CLDR says: the colours of the embedding map and its purity score.

The table is generated (tools/make_language_families.py) from the language groups of the Unicode CLDR 48, whose groups
are those of ISO 639-5 (© 2004-2026 Unicode, Inc., Unicode License v3), plus a few languages that CLDR leaves out. It is
coarse and incomplete: isolates, creoles, signed and constructed languages, and groups that are only geographic have no
family here, and None is the answer.
"""

from __future__ import annotations

from functools import cache

_TABLE = """\
aav: aem agi asr bbh bfw bgk bgl bix biy blr brb bru brv btq caq cbn cdz cmo cog crv crw cwg dnu ekl gaq gbj hkn hnu
 hoc hre huo irr jah jhi jun kdt kfj kfp kfq kha khm khr kjg kjm kns kpm krr krv ksz ktv kuf kxm lbn lcp lnh lwl mhe
 mjx mkh mlf mmj mml mnq mnw mqt mra mtq mun mzt ncb ncq ngt nik nuo nyl omx oog oyb pac pbv pcb pce pcj phg pkt pll
 ply pnx prk prt rbb ril rka rmx sat sbo scb scq sct sea sed smu sqq srb ssm sss stg sti stt sxm syo sza szc tdf tea
 tef tgr thm tlq tmo tnz tou tpu trd tth tto tyh ukk unr uuu vie vwa wbm xao xkk xko xnh yin zng
afa: aal aao aar aas abh acm acy aeb aec agj ahg aii aiw ajw akk amf amh amw anc ank apc ara arq ars arv ary arz auj
 auz avl awn ayl ayp bcq bcw bcy bde bdm bdn bds bej ber bhm bhn bid bji bnl bob bol bst bsw bta btf bvf bvh bvw bwo
 bwr bxe bxq byn cdc ckl ckq cky cla cnu cop cra cus cxh daa dal dbb dbq dim dlk dot dox doz drs dsh dwa dwr dzd egx
 egy elo fie fif fkk fli gab gax gde gdk gdl gdq gdu gea gek gew gex gez gha gho gid gii gis giz glo glw gmv gnc gnd
 gof gow gqa grd grr gru gwd gwn gyl gyz hae har hau hbo hdy heb hed hia hig hna hoh hrt hss hwo inm ior irk isr jaf
 jbe jbn jeu jie jim jmb jmi jnj jpa jrb juu jye kab kai kbr kbz kcn kcs kcx ker kil kna kof kot kpa kqd kqx kqy kso
 ksq kuh kul kvf kvi kvj kwl kxc kxh ldd lhs lln lme maf mcn mcw mdy mes mew mey mfl mfx mid mif mkf mlj mlw mmf mmy
 moy moz mpg mpi mpk mqb mse msv mug muj muy mvz mxf mxu myo mys myz mzb nbh ndm ngi ngw ngx nja nnc nnn nqt nxm oar
 obm omv orc orm oua oyd pbi phn pip piy pqa rel rif rzh saa say scw sds sem sgw shi shv shy sid sir siz sjs smp sok
 som sor sqr sqt ssh ssn ssy stv sur swn swq swy syr tak tan taq tax tdk tez thz tia tig tir tjo tmc tmh tqq trj tru
 tsb tsh ttr ubi udl uga wal wbj wka wle xaa xan xdm xeb xed xha xhd xmj xna xpu xqt xsa yhd ymm yud zah zay zaz zbu
 zen zgh zim ziz zns zrn zuy zwa
aqa: alc
aql: aaq abe alg alq arp ats bla chy ciw cre crr csw del etc kic mez mia mic mjy moe nnt ojb ojc oji ojs ojw otw pim
 pot pqm psy qyp sac sjw tqw unm wam wiy xnt xpq yur
awd: aca ame aox apu aru arw auf avo bae brg bvv bwi cab caj cbb ccc cjo cni cot cox cpc crb cuj cul dny gae gqn guc
 ign inp jaa kav kpc mcb mht mmh mpd mpw mzx not pab pad pbg pib pio plu pnk rgr sar swx tae ter tnq trn unk wap wau
 xir yaw ycn yvt
azc: azd azn azz chl cok com crn cup hch hop lui mfy mnr nah naz nch nci ncj ncl ncx ngu nhc nhe nhg nhi nhk nhm nhn
 nhp nhq nht nhv nhw nhx nhy nhz nlv npl nsu ntp nuz ood opt pao par pia ppl ser shh stp tac tar tbu tcu tep thh tla
 tub twr ute var xaw xgf xpo yaq
cba: arh brn bzd cbg chb cjp cuk gut gym kog kvn mbp mot pay rma sab tbn tfr tnb tnd
ccn: abk abq ady kbd uby
ccs: jge kat lzz oge sva xmf
cdd: ari cad kii paw wic
csu: aja avu bdh bex blm bmi bot bvq bxv dsi efe fgr fuu gbn gqr hor jyy kah kcm krs kwg kwv kxj lap led les lgg lmi
 log mdi mdj mgc mge mne mwm mwu myb ndp niy nwm sba sbz snm yul
dra: aaf all bfq brh brw cde ctt cty emu era esg fmu gon hoy ima iru kan kej kep kev kfa kfb kfc kfd kff kfh kfi kmj
 kpb kru mal mha mjo mjp mjq mjr mju mjv mmk mrr mut muv nbg nit oty pcf pcg pkr ptq pty sle tam tcy tel thn udg ull
 url vis vmd wkb wkl wku wsg xis xua xub xuj yea yeu ymr
esx: ale iku kal ysr
hmx: bje bmt bpn buh bwn bwx cqd hma hmc hmd hme hmf hmg hmh hmi hmj hml hmm hmn hmp hmq hms hmv hmw hmy hmz hnj hrm
 huj ium mji mmr muq mww neo pha pnu sfm shx
hok: acv atw boi chd cid clo coc coj crz dih esq inz kju klb kyh mov mrc obi peb pef pej peq pom poo ppi puy sei sht
 sln veo was ynn yuf yum
ine: acf aeq afr ahr ang anp aoa arg ask asm atn avd ave awa bal bar bat bdv bdz bel ben bfy bgc bgn bgw bha bhb bhe
 bhh bhi bho bht bjj bjm bmj bns bos bpy bqi bra bre bsg bsh bul cat cbk ccp cel ces chu cih cim ckb cks cms cnx cor
 cos cpf cpg cpp cri crs csb ctg cym czk dan dcr def deh deu dhw div dlm dmk doi drc dry dsb dub duh dum dwz egl ell
 emx eng enm esh ext fab fao fas fax fay fra frc frk frm fro frp frr fry fur gbl gbz gcf gcr gct gda geh gem ghc ghr
 gjk gla gle glg glk glv gme gmh gmq gmw gmy goh goj got goz gpe grc grk gsw guj gzi hac haj hat hif hii hin hit hlb
 hlu hne hns hrv hrz hsb htx hye hyw hyx idb iir imy inc ira isk isl ist ita itc itk jdt jog jpr kas kea keq key kfm
 kfy kgn khn kho kiu kjv kok kra ksh ksy kur kvx kxp kyw lad lat lav lij lim lit lki lld lmo lng lou lrc lrk lrl lsa
 ltg ltz luz mag mai mar mcm mfe mhn mjz mkb mkd mke mki mnj mxi mzn mzs nap nds nei nep nhh nld nlx nno nob noe noi
 non nor nrc nrf nrn ntz nyq oak oci oco odk odt ofs oht okh olt oor ori ort oru orv osc osp oss osx ovd pal pan pcd
 pcl pdc pdt peo pfl pgd pgl pld pln plq pmh pml pms pnt pol por pov pox pra prc pre prg prn pro pus pwr raj rat rcf
 rdb rei rge rgn rhg rjs rmd rme rmf rmi rmq rmt roa roh rom ron rsb rsk rtw rue ruo rup ruq rus san saz scf sck scn
 sco scx sdb sdc sdf sdh sdn sdr sdt sgr sgs shm sin siy skr sla slk slv smm smy snd sog soi soj spa spv spx sqj sqo
 srd srp srx srz ssi sth sts svm svx swe swg sxl sxo syl szl tdb tgk the thl thq thr tkb tks tkt tly tnv tov trl trm
 trw ttt tvy txb txh ukr umc urd vaf vec ved vkp vls vmh wae wbk wbl wen wep wln wne wry wym xae xbc xcb xce xco xcr
 xcu xdc xfa xga xgl xhr xil xkc xkj xkp xlc xld xlg xli xln xlp xls xlu xme xmk xmn xnr xpg xpi xpr xps xsc xsd xsv
 xto xtq xum xve xvi xvn xvo xvs xzm yah yai ydg yec yid yih yms yol ysc zea zle zls zlw zrp zza
iro: cay chr lre moh ntw one ono see sqn tus
jpx: jpn
map: aaw aaz abd abl abs abx ace adr adz aek agf agk agn agt agw agy agz ahb aia aie aix aji akb akg akl akr alj alm
 alo alp alu ami amq amv and ane anx aok aol aor aoz apb app apr aps apx aqn aqr asl asz atk atl atm atp att aty atz
 aua aud aul auq aut axx ayt azt baa baj ban bay bbc bbn bch bcm bcu bdb bdg bdl bdr bdx bed beg bei bek bep bew bfx
 bgb bgt bgy bhc bhp bhq bhr bhv bhw bhz bik biq bjk bjl bjn bjp bki bks bkx bkz blf bln blp blq bmc bmm bmn bna bnc
 bnd bne bnj bnk bnn bno bnp bnq bnr bnu bny bpa bpg bpk bpq bpr bps brj brr brs bsb bsu bsy btd bth btj btk btm btn
 bto btp btr bts btw btx btz bug buk bup bvc bvd bve bvt bvy bwa bwd bwf bxa bxf bya byd byq bzc bzg bzh bzl bzn bzq
 cal cam ceb cgc cha chk cia cir cja cje cjm ckv cmc cml coa crc cts cyo dac daw day dbj ddi dgc dgg dhv dkk dms dmv
 dob dok don dor dpp drg dro dru dsn dtb dtp dtr duf dul dun duo dup duq duw dva dww ebk elu emb emi emw end eno erg
 erk erw etn faf far fbl fij fil fnb fos fox frd frt fud fut fwa gad gal gar gay gdd gdg gei gfk gga ggt ghn gil gip
 gmb goc goo gop gor gri grw grz gve gzn hah hao haw hbu heg hil hiw hla hmo hnn hoa hot hrk hro hti huk hul huq huw
 hvk hvn iai iba ibg ibh ibl idt iff ifu ify ila ilk ilm ilo ilp ilu ind inn ire irh iry isd ism itd iti itt itv ity
 ivb ivv jae jaj jak jal jas jav jax jaz jmd jra jvn kae kak kaw kbm kbw kcl kdg kdk kei kem kgb kge kgx khc khl kij
 kis kjc kje kji kjk kkk kkv kkx klg kll klv klw kly kmd kmk kml knb kne knx koa kod kos kpg kqe kqr kqw krd krf krj
 ksc ksd ksg ksl ksn ksx ktm ktq kud kuk kuv kvc kvh kvo kvp kvr kvv kwd kwf kwh kxa kxd kxn kxr kyd kyi kyj kyk kyn
 kys kzb kzd kzf kzi kzk kzl kzs kzu kzx laa law laz lbb lbl lbq lbu lbv lbw lbx lcc lcd lce lcl lcm lcq lek ler let
 leu lew lex ley lga lgb lgi lgk lgl lgr lgu lhh lht lib lid lio liw lix lji ljl ljp lka lkj lkn lle llf llg llk llp
 llq llu llx lmb lmg lml lmq lmu lmv lmy lnd lnn loc loe loj los low lox lpa lra lrv lrz lti lur lva lwt lww lxm lzl
 mad mah mak mbb mbd mbi mcy mdh mdr mee mek mel met meu mfp mft mgl mgm mhs mhy mhz mjm mkj mkm mkn mkt mkv mky mla
 mlg mli mll mln mlu mlv mlx mme mmg mmm mmn mmo mmt mmw mmx mna mnb mnl mno mnv mog mox mpl mpn mpo mpr mpy mqa mqg
 mqj mqk mqm mqn mqp mqq mqx mqy mqz mrb mri mrk mrl mrm mrn mrp mrq mrs mrv mrw mry msa msb msh msk msm msn msq mss
 msu mta mtd mte mth mtt mtw mui mva mvd mvo mvp mvt mvv mvx mwa mwc mwg mwh mwi mwo mwt mwv mxe mxm mxr mxz myl myw
 mzq nae nak nal nau nbn ncc ncf ncn nea nee nek nem nen nfa nfl ngr nho nia nij nil niu nke nkk nkp nkr nlg nlz nmb
 nmk nms nmt nnd nni npn npx npy nrg nrm nrz nsn nss nsw nsy ntu nua num nuq nur nuw nvh nwi nxa nxe nxg nxl obk ocm
 ojv olr omb omy oni onu ora orn ors orz osi osn otd oum pag pam pau pdo pea pee pek pel pex pez pfa pgk phi pif piv
 pix piz pkg pkp pku plb plc ple plf plh plv plw pma pme pmf pmt pne pnh pnm pnp pon pop poz ppm ppn ppu pqe pqw pri
 pse psn pss psw ptp ptr ptv puc puf put puw pwg pwm pwn pyu pzh rad rai rak rap rar ray raz rbk rbl reb ree rej rga
 rgs rgu riu rjg rkh rmm rob roe rog rol ror row rpn rri rrm rro rth rtm rug ruu sas sau sax sbb sbc sbe sbh sbl sda
 sdo sdx sew sgb sgd sge sgu sgz sih sij sjm sjr ske skg skh ski skn sko sku skx sky skz slm slu slz smk sml smo smr
 smw snc sne snl sns snv sob sol sov spb spe spg spr sps sre srf srg srk srv srw sry ssb sse ssf ssg sso ssq ssv ssz
 stb stn stw suc sun svb sve swp sws sww sxn sxr sya syb szn szw szy tah tao tay tbc tbe tbf tbj tbk tbl tbw tbx tdi
 tdj tdn tdt tdx tdy tes tet tev tgb tgc tgi tgn tgp tgs tgt tio tis tiu tjg tkd tkg tkl tkp tkv tkw tlk tlm tln tlr
 tls tlt tlu tlv tlx tmb tmi tmq tmt tmw tmy tni tnk tnl tnn tnp tns tnt tnw tnx tom ton tox tpa tpf tpv tpz tql tqp
 trb tre trv trx tsg tsr tsu ttg tti ttp ttu ttv ttw tuc tva tve tvk tvl tvm tvx twb twp twu twy txe txm txn txq txs
 txy tzn ubl ubr udj ues uge uli ulu umi ums una unu unz uon upv urk urn urr urv utp uur uve uvl val vao vbk vkk vkl
 vko vkt vlp vme vmg vnk vnm vnp vra vrs vrt wab wad wag wah war wat waz wbb wbw wed weo wet wew wgb wgo wha whk wiv
 wlo wlr wls wmh wmn wnk woc woe wow wru wrx wsa wtw wuv wuy wwo wyy xbr xdy xkd xkl xkq xks xkx xky xmm xmv xmw xmz
 xnb xnn xsb xsi xsy xxk yap yka yki ykk ykm ylb yly ymn zbc zbe zbt zbw zeg zgr zlm
myn: acr agu caa cac cak chf cob ctu emy hus itz ixl jac kek kjb knj lac mam mhc mop poc poh quc qum quv toj ttc tzh
 tzj tzo usp yua
ngf: aac abg abz adn aez ahh aip aqm asx asy ate auu auy aws awu awv bbb bbr bdf beu bfn bhl bie bir bjz bmh bmp bmu
 bmz bop boq bql bwk bxz cns dah daz ddg dev dge dgx dgz diy dna dni dnt dnw dof dui duk eip ekg ena enq eri fad fag
 fai faj fiw foi for frq gaf gah gaj gao gap gaw gcn gka gkd gmg grg gsn gvf hhi hhy hmu ihp imo ipo irx iwo jbj jka
 kbk kbq kcb kco kdw kew kgf kgq kgv khe kjy kkl klp klt klz kpq kpx kqi kti kts ktt kue kvd kvw kwr kyo kyt kyy kzm
 kzv lev luf mbw mcz med mgu mhf miw mjj mlh mmq mnz mpt mpv mqv mrz mso msx msz mtc mtg mtv mux mvq mze nbk nca nec
 nej net nkg nkj nks nlc nlk nnf nps nwr nxr oia okv omw onj opk opm pda pla pmr prw psa rmp rwo sbq sej six smc sra
 sst ssu stm sue sug sui swm swt szb tbg tbv tif tkx tlf tml tnh tpg trh twg ubu ufi uhn ukg urm usu wei whg wmc wms
 wnc wng wno wnu woi wrv wtf xow xsp xte yac ybm ygm ygr yir yli ynb yon yrb yrw ytw
nic: aaa aab aba abb abi abm abn abo abr abu acd acp acz ada ade adj adq adu afe afn afu agb agc agh agq aha ahl ahm
 ahp aik aiy ajg aka akd akf akp aku ala ald alf alv anf ann anv anw any aqd aqg aqk asa asg asj ass ati ato aug auh
 avi avn awc axk ayb ayg ayi ayu azo bab bad baf bag bai bam bas bau baw bax bba bbg bbi bbj bbk bbm bbo bbp bbs bbu
 bbx bcb bce bcg bci bcn bcs bcv bcz bda bdj bdp bdt beb bec beh bem beq bes bet bev bez bfd bff bfl bfo bga bgf bgj
 bgo bgu bib bif bim bin bip biv biw biz bja bjg bjo bjt bju bka bkc bkf bkh bkj bkm bko bkt bkv bkw bky ble bli blo
 blv bly bmb bmd bme bmf bmg bml bmq bmv bmw bng bni bnm bnt bnx bnz boe boh bok bom boo bou bov box boy boz bpj bqa
 bqc bqj bqm bqp bqu bqz brf bri brl brm brt bsc bse bsi bsp bsq bss bsx btc btg btt bud buf bui bum bun buu buy buz
 bvb bvi bvj bvx bwc bwg bwh bwj bwl bwq bwt bwu bww bwy bwz bxc bxg bxl bxp bxw byb byc byf byi byj byv bza bze bzm
 bzv bzw bzx bzy bzz cae cbj cbo cbq cce ccg cch ccj ccl cfd cgg chw cib cjk cko cli cll coh cou cpn cpo cry cuh cwa
 cwb cwe cwt dag dai dam das dav dbg dbi dbm dbo dbt dbu dbv dbw dde dds dee deg deq dez dga dgb dgd dgi dhm dhs dic
 dig dii dir diu diz djm dma dmb dmm dmn dmx dne dnj dnn doe doh doo dop dov doy dtk dtm dto dts dtu dua dug dur dux
 duz dya dyi dym dyo dyu dza dzn ebg ebo ebr ebu efa efi ega ego ehu eja eka eke eki ekm eko ekp ekr eli elm ema emn
 enn env enw eot epi erh esm etb eto ets etu etx evh ewe eza eze fah fak fal fam fap fer ffm fip fir fll flr fmp fng
 fni fod fom fon fub fue fuh fui fuj ful fum fuq fuv fwe gaa gba gbg gbh gbp gbq gbr gbs gbx gby gdi gec ged gej gel
 geq gev gey ggb ggu gix gjn gke gkn gkp glc gmd gmm gmx gmz gng gnh gnj gnz goa god gog gol gox goy grb grh grj grv
 gsl gso gua gud gur guw gux guz gvm gwa gwb gwe gwr gwx gxx gye gyg gyi hag haq hav hay hba heh hem her hhr hij hka
 hke hng hoe hol hoo ibb ibe ibm ibn ibo ibr iby ich idc ide idr ids idu ifm igb igl ihi ijc ije ijn ijo ijs iki ikk
 iko ikw ikz ilb ilv iqw ish isi isn iso isu itm its itw iyx izr izz jab jek jer jgk jgo jid jit jjr jku jmc jmr jms
 jni job jod jud juh juk juo juw kaj kam kbj kbp kbs kcc kcg kcj kck kcq kcu kcv kcw kcz kdc kde kdh kdm kdn kdo kdx
 kdz keb ked kef kel ken kes keu kez kfl kfn kfo kfz kga kgt khj khu khx khy kia kid kik kiv kiz kki kkj kkm kku kkw
 klc klk klo kma kmb kme kmi kmw kmy knf kni knk kno knp knu kny kon koo koq kou kov kow kpe kph kpk kpl kpo kqg kqk
 kqm kqn kqs krh kro krp krw krx ksb ksf kss ksv ktf ktj ktu kty kub kuj kus kuw kvm kwm kwn kwp kws kwu kwy kxb kye
 kyf kza kzc kzn kzo kzr kzy lag lai lam lan lar las lch lda ldg ldh ldi ldm ldq lea lee lef lel lem leo lfa lgm lgq
 lgz lia lie lig lik lin lip lke llb llc lli lma lmd lmp lna lnb lnl lns lnz lob lof lok lol lom lon loo loq loz lro
 lse lsm lua lub lue lug luj lum lun lup luq luy lwa lwg lyn mae man maw mbo mbv mcj mck mcp mcs mcu mcx mdd mdp mdq
 mdt mdw mea men mer mev mfc mfd mff mfn mfo mfq mfu mfv mgg mgh mgj mgn mgo mgq mgr mgs mgv mgw mgy mgz mhb mhd mhk
 mhm mho mhw mij mjh mkk mkl mko mkw mlk mlo mma mmu mmz mnh mnk mny moa moj mor mos mow mpa mql mru msj msw mtk mua
 muc muo mvw mwe mwk mwn mws mwz mxc mxg mxl mxo mxx myc mye myg myj myk myx mzd mzj mzk mzm mzv mzw naj nat naw nba
 nbd nbl nbm nbo nbp nbr nbv nbw ncr ncu ndc ndd nde ndh ndi ndj ndk ndq ndr ndt ndv ndw ndz ned ney nfr nfu nga ngb
 ngc nge ngg ngl ngp ngv nhu nie nih nim nin njd njr njx njy nka nkn nko nkq nkt nku nkv nkx nkz nla nle nlj nlu nmg
 nmj nmq nmr nmz nnb nne nnh nnq nnu nnw nnz noq now noy nqk nql nqo nra nsc nse nso nsx nti ntk ntm nto nue nuh nui
 nuj nup nuv nvo nwb nwe nxi nxo nya nyb nyc nye nyf nyg nyj nyk nym nyn nyo nyr nyu nyy nza nzb nzd nzi nzu nzz obu
 oda odu ofu ogb ogc ogg ogo ogu okb okc okd oke okr oku old olu opa orr orx otr ozm pae pbl pbo pbp pbr pcn pem phm
 pic pil piw pkb pmb pnd png pnl pnq pny pnz pof poy ppp pug puu pwb pye pym rag ras res rim rkm rnd rng rnw rof rub
 ruc ruf rui ruy rwk rwm saf sag sak sav sbd sbk sbm sbp sbs scv sde sdj sef seg seh sev sfw sgm sha shc sho shq shr
 shw shz sie sig sil skq skt slx smx sna snf sng snj snk snq snw soc soo sop sos sot sox soy soz spp sqm srr ssc ssl
 ssw stj sub suj suk sus suw swa swc swf swj swk sxb sxe sxw syi sym syx szv tag tap taz tbm tbt tbz tcd tck tde tdl
 ted teg tek tem tfi tga tgw tgy thk thy tik tiq tiv tjn tke tkq tlj tll tlo tmv tnr tny tod tog toh toi tor toz tsc
 tsn tso tsp tsv tsw ttb ttf ttj tug tui tum tuz tvd tvs tvu twl twn two twx tyi tyx uba uda uiv ukh ukp ukq ukw ula
 umb umm urh usk uta uth utr uya vag vai vau ven vid vif vin vit vkn vmk vmr vmw vor vum vun vut wbf wbh wbi wci wdd
 wec wem wib wlc wlx wmw wni wof wol wom won wrn wss wum wun wwa www xab xdo xgb xho xkb xkg xku xkv xma xmb xmc xmg
 xnj xnq xoc xog xon xrb xsm xsn xsq xwe xwl xxb yaf yal yam yao yas yat yav yax yay yaz yba ybb ybj ybl yel yer yey
 yko yky ymg ymk yng ynq yns yom yor zaj zga zil zin ziw zmf zms zmw zmx zna znd zne zul
omq: amu azg azm cco chj chq chz cip cly cnl cnt coz csa cso cta cte ctl ctp ctz cuc cut cux cvn czn ixc jmx mab maj
 maq mat mau maz mce mdv mib mie mig mih mii mil mim mio mip mit miu mix miy miz mjc mks mmc mom mpm mqh mtu mtx mvg
 mxa mxb mxs mxt mxv mxy ocu ote otl otm otn oto otq ots ott otx otz pbe pbf pbs pca pei pls pmq pmz poe pow pps sut
 tcf tpc tpl tpx trc trq trs vmc vmm vmq vmx vmy vmz xta xtb xti xtj xtl xtn xtt xtu xty zaa zab zac zad zae zaf zam
 zao zap zaq zar zas zat zav zaw zoo zpb zpc zpd zpe zpf zph zpi zpl zpm zpo zpp zpq zpr zps zpt zpu zpw zpy zpz zsr
 zte ztg ztm ztn ztp ztq ztt ztx zty
qwe: inb inj qub qud que quf qug quh quk qul qup qur qus quw qux quy qva qvc qve qvh qvi qvj qvl qvm qvn qvo qvp qvs
 qvw qvz qwa qwc qwh qws qxc qxh qxl qxn qxo qxp qxr qxt qxu qxw
sal: blc cea cjh clm col coo cow crd fla hur lil lut nok oka ptw qun sec shs ska slh sno spo squ str thp til twa
sdv: ach adh alz anu atu bdi bfa bxb byg dau ddd dgl dib dil din dip diw dks drb elh enb eyo fia ghl jum kdj kdu keo
 kko kln koe kpz liu lky loh lot lpx lth luo mas mfz mhi mqu mur muz mym niq njl nnj nsg nub nus oki omt onw pko saq
 sgc shj shk soh suq tbi tcc tec teo teq tex toq tuv tuy ukv wll xel xmr xnz xwg zmo
sio: asb bll chc cmm cro dak hid iow ksk lkt mhq ofo oma osa qua sto tta win xwc
sit: acn adi adl aeu ahk aim anm aot aph apt atb aub bap bca bee bfc bft bfu bgg bgr bhj biu blk bod bqh brd bro brx
 bwe bxd byh byo byw bzi cda cdf cdm cdn cdo cfm cgk chx cjy ckh ckn clj clk cmr cnc cng cnh cnk cnp cpx csh csj csp
 ctd cth ctn cur cuw cvg czh czo dao der dhi dis dka drd dre drq dus duu dzl dzo eky emg enu ero ers gan ghe ghh ghk
 ght gnb goe gqi gro grt gvr gyo hle hmr hni hpo hsn hut iii jda jee jih jiu jiy jkm jkp jkr jna jnl jul jya kac kaf
 kar kbg kdq kfk kfw kgj kgy khg kif kip kix kjl kjp kjt kjz kkf kkt kle klr kmm ksw kte ktp kvl kvq kvt kvu kvy kxf
 kxk kzq lae lax lay lbf lbg lbr lep lgh lhi lhm lhp lhu lif lis lkc lkh llh lmh lov loy lpo lrr lsh lsi ltc lus lwm
 lwu mhu mjw mni mnp mpz mrg mrh mro muk mxj mya nan nbe nbi nbt nbu ncd neh new njb njh njm njn njo njz nkb nkd nkf
 nkh nki nma nme nmm nmo nmy nng nnl nnp nos npa npb npg nph npo npu nqy nre nri nru nsf nsm nst ntx nty nun nwc nxk
 nxq nzm obr och ola ole pck pdu phh pho phq pkh pmi pmj pmx prx pub pum pwo pww pzn qvy qxs raa rab raf rah raq rau
 rav rgk ria rji rki rmz rnp rtc ruh sbu sch scp scu sdp sgk sgp sgt shl sip sjl skj slt smh smt spt ssk suv suz sxg
 syw taj tbq tcl tco tcz tdg tdh tge tgf tgj thf ths tij tji tjs tpe tpq tro trp tsj tsk ttz tvn twm txg txo ugo usi
 vap vay wea weu wme wuh wuu wxa xac xkf xkz xns xsr xzh ybh ybi ych ycl ycp yif yig yim yiq yiv yiz ykt ylo ymc ymd
 ymi ymq ymx ymz yna ypa yph ypn ypo ypp ypz ysd ysp ysy yta ytl yue ywl ywq ywt zal zau zho zhx zkd zkn zkr zom
son: ddn dje dsq hmb kcy khq ses tda tst twq
tai: aho aio blt eee khb kht ksu lao nod nrr nut pcc pdi phk shn soa tdd tha thi tjl tnu tpo tsl tyj tyr tyz zch zeh
 zgb zgm zgn zha zhn zlj zln zlq zyg zyj
trk: aib alt atv azb aze bak bgx chg chv cjs clw crh dlg gag ili jct kaa kaz kdr kim kir kjh klj kmz krc kum nog otk
 oui qwm qxq sah slr sty tat tuk tur tyv uig uum uzb xbo xpc xqa ybe zkh zkz
tup: aan ait ama api aqz arr arx asn asu aux avv awe awt cin cod eme gnw grn gub gui gun guq gvj gvo gyr jor jua jur
 kay kgk kpn ktn kuq kyr kyz mav mdz mnd mpu msp myu nhd omg oym paf pah pak pog psm pta pto skf srq sru taf tkf tpj
 tpk tpn tpr tqb twt urb uru urz wir wyr xaj xiy xmo yrl yuq
tuw: eve evn gld juc mnc neg oaa oac orh sjo ude ulc
urj: chm enf enh est fin fit fiu fkv hun izh kca koi kom krl liv lud mdf mns mrj mtm myv nio olo omk rts sel sia sjd
 sje sjk sjt sju sma sme smi smj smn sms syd udm vep vot xas xcv ykg yrk yux zkv
wak: dtd has hei kwk myh nuk
xgn: bua bxm bxu cmg dta kxs mhj mjg mon mvf peh sce xal xng ykh yuy
xnd: aht apa apj apk apl apm apw ath bcr bea caf chp clc coq crx den dgr eya gce gwi haa hoi hup ing kkz koy ktw kuu
 mvb nav qwt scs sek srs taa tau tcb tce tfn tgx tht tli tol ttm tuu txc wlk xup
ypk: ess ynk
"""

# Languages of common corpora that CLDR's groups lack and whose family nobody disputes.
_MORE = """\
afa: acq ajp alw dbr jii mlt
aav: juy unx
awd: cpu
ine: aln als ast bfz bpx dso lbm mwl pnb rmn rmy sqi
map: abc buc max min ppk
nic: amo fuf ndo reg run zdj
omq: mzi ztu
sit: csy hak hlt tvt
tai: kkh
"""


@cache
def _families() -> dict[str, str]:
    table: dict[str, str] = {}
    for entry in (_TABLE + _MORE).replace("\n ", " ").splitlines():
        family, _, codes = entry.partition(": ")
        table.update(dict.fromkeys(codes.split(), family))
    return table


@cache
def family_of(language: str) -> str | None:
    """The family of a language (ISO 639-3, with or without a script) as a code of ISO 639-5, or None where unknown.

    A language that CLDR does not list belongs to the family of its macrolanguage (`ekk` -> `est` -> `urj`).
    """
    code = language.partition("_")[0]
    table = _families()
    if code in table:
        return table[code]
    from langcodes import Language

    macro = Language.get(code).prefer_macrolanguage()
    try:
        return table.get(macro.to_alpha3())
    except LookupError:  # not a code of ISO 639
        return None


@cache
def family_name(family: str) -> str:
    """The English name of a family: `ine` -> `Indo-European`."""
    from langcodes import Language

    name = Language.get(family).display_name()
    return name.removesuffix(" languages").removesuffix(" (family)")
